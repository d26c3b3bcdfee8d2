"""The history's part of the monitor: takes what the feed reports, and has it written.

Rules: writing is done in a thread, one batch after another, and nobody waits for it longer than
`PATIENCE_S`. Events are written at once, all else once a minute. What couldn't be written is kept
for the next minute, up to `MOST_KEPT` records of a kind. A trouble is said once, and when it is
over.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ifdefault.ipc import log, tasks
from ifdefault.model.errors import reason
from ifdefault.monitor.config import MonitorConfig
from ifdefault.monitor.feed import NewEvents, Report
from ifdefault.monitor.history.file import HistoryFile
from ifdefault.monitor.history.recorder import Recorder
from ifdefault.monitor.history.records import MINUTE_S, Batch
from ifdefault.monitor.history.schema import FILE

PATIENCE_S = 1.0
MOST_KEPT = 20_000
Say = Callable[[str, str], object]


class History:
    """A consumer of the monitor, to be opened before it receives anything."""

    def __init__(self, directory: Path, keep_s: int, say: Say) -> None:
        """`say`: told of a trouble by its name, with "" when it is over."""
        self._path, self._say, self._keep_s = directory / FILE, say, keep_s
        self._file = HistoryFile(directory)
        self._thread = ThreadPoolExecutor(1, "history")
        self._recorder = Recorder()
        self._writing: asyncio.Task[None] | None = None
        self._minute = 0  # of the last attempt to write
        self.serial: int | None = None

    async def open(self) -> None:
        """Go on where the file ended."""
        if not self._keep_s:
            return
        loop = asyncio.get_running_loop()
        try:
            store = await loop.run_in_executor(self._thread, self._file.open)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return
        self._recorder = Recorder(store.spans, store.counters, store.seen)
        self.serial = store.serial if store.serial >= 0 else None
        self._say("history aside", self._file.aside())

    async def configure(self, config: MonitorConfig) -> None:
        kept, self._keep_s = self._keep_s, config.history.keep_s
        if not kept:
            await self.open()
        elif not self._keep_s:  # what is left of it stays
            self._recorder = Recorder()
            self._say("history", "")

    async def receive(self, report: Report) -> None:
        """Events have been written when this returns, if that is possible at once."""
        if not self._keep_s:
            return
        self._recorder.receive(report)
        now = time.time()
        if isinstance(report, NewEvents) or int(now) // MINUTE_S != self._minute:
            await self._write(now)

    async def close(self) -> None:
        """Write what is left. A disk that hangs isn't waited for."""
        await self._write(time.time())
        if self._writing is None:
            self._file.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _write(self, now: float) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=PATIENCE_S)
        if self._writing is not None:
            self._recorder.batch = self._recorder.batch.followed_by(Batch(), MOST_KEPT)
        elif self._recorder.batch:
            self._minute = int(now) // MINUTE_S
            batch, self._recorder.batch = self._recorder.batch, Batch()
            self._writing = tasks.start(self._perform(batch, now))
            await asyncio.wait([self._writing], timeout=PATIENCE_S)

    async def _perform(self, batch: Batch, now: float) -> None:
        loop = asyncio.get_running_loop()
        write = partial(self._file.write, current=self._recorder.current(), keep_s=self._keep_s)
        try:
            await loop.run_in_executor(self._thread, write, batch, now)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            self._recorder.batch = batch.followed_by(self._recorder.batch, MOST_KEPT)
        except Exception as error:  # it would fail again, so that this batch is lost
            log.exception(error, "history")
        else:
            self._say("history", "")
            self._say("history aside", self._file.aside())
        self._writing = None

    def _fail(self, error: sqlite3.Error | OSError) -> None:
        why = reason(error) if isinstance(error, OSError) else str(error)
        self._say("history", f"{self._path}: can't be written: {why}; tried again each minute")

"""The records that the engine writes: one from its start on (`run --record`), and one on request.

Rules: one request at a time. Its record is a file of the run directory, which is in memory, so that
no disk delays a turn; whoever asked for it takes it away. An error ends a record, never the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.record import Recorder, create
from ifdefault.daemon.snapshot import Snapshot
from ifdefault.model.errors import HostError, Problem

RECORD = "record.jsonl"  # in the run directory
_KEEP_S = 60.0
_MOST_BYTES = 64 << 20  # a full /run would harm the host


class Recordings:
    def __init__(self, run_dir: Path, event_log: EventLog) -> None:
        self._path, self._event_log = run_dir / RECORD, event_log
        self._recorders: list[Recorder] = []
        self._busy = False

    def begin(self, path: Path) -> None:
        """Record into a new file from now on, the start; HostError if that isn't possible."""

        def ended(why: str) -> None:
            self._event_log.note("engine", f"{path}: {why}", severity="warning")

        self._recorders.append(create(path, ended))

    def write(self, now: float, events: Sequence[e.Event]) -> None:
        for recorder in self._recorders:
            recorder.write(now, events)

    async def record(self, controller: Controller, seconds: int) -> Path:
        """Record for so long; return the file. It begins with the controller's present state."""
        if self._busy:
            raise HostError(Problem("record", "another one is being made", "try again"))
        self._busy = True
        try:
            await self._record(controller, seconds)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            self._busy = False
        asyncio.get_running_loop().call_later(_KEEP_S, self._drop, self._path.stat().st_ino)
        return self._path

    def _drop(self, inode: int) -> None:
        """Remove a record that nobody took away."""
        with suppress(OSError):
            if self._path.stat().st_ino == inode:
                self._path.unlink()

    async def _record(self, controller: Controller, seconds: int) -> None:
        problems: list[str] = []
        with suppress(OSError):  # left behind by a client that went away
            self._path.unlink(missing_ok=True)
        recorder = create(self._path, problems.append, Snapshot(controller), _MOST_BYTES)
        self._recorders.append(recorder)
        try:
            self._event_log.note("engine", f"recording for {seconds} s, as requested")
            await recorder.write_state()
            await asyncio.sleep(seconds)
        finally:
            self._recorders.remove(recorder)
            recorder.close()
        if problems:
            raise HostError(Problem(str(self._path), problems[0], "make room there"))

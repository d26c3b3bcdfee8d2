"""The metrics as a file, for the textfile collector of Prometheus' node_exporter.

Rules: it is written each `EVERY_S`, whether the engine answers or not, so that its age shows
whether anybody writes it. A reader sees the old file or the new one as a whole, and every user may
read it. Until it takes its place the new one has a name that the collector, which looks for *.prom,
doesn't read. A disk that hangs keeps nobody waiting. What renders it is loaded when it is needed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from ifdefault.ipc import log, tasks
from ifdefault.model.errors import HostError, Problem, internal, reason
from ifdefault.monitor.config import MonitorConfig
from ifdefault.monitor.feed import Away, Report, Sample
from ifdefault.monitor.history.budget import Budget
from ifdefault.monitor.history.budgets import read_budgets
from ifdefault.monitor.replace_file import replace_file
from ifdefault.monitor.status_file import read_status

EVERY_S = 15.0
_KEY, _TROUBLE = "history.textfile", "textfile"
Say = Callable[[str, str], object]


class Textfile:
    """A consumer of the monitor."""

    serial: int | None = None

    def __init__(self, state_dir: Path, run_dir: Path, config: MonitorConfig, say: Say) -> None:
        """`say`: told of a trouble by its name, with "" when it is over."""
        self._state_dir, self._run_dir, self._say = state_dir, run_dir, say
        self._config = config
        self._report: Sample | Away | None = None  # the last one
        self._news = asyncio.Event()
        self._writing = tasks.start(self._write_for_good())

    async def receive(self, report: Report) -> None:
        if isinstance(report, Sample | Away):
            self._report = report
            self._news.set()

    async def configure(self, config: MonitorConfig) -> None:
        before, self._config = self._config.history.textfile, config
        if before not in ("", config.history.textfile):  # it wouldn't change any more
            with suppress(OSError):
                await asyncio.to_thread(os.unlink, before)
        self._news.set()

    async def close(self) -> None:
        await tasks.end(self._writing)

    async def _write_for_good(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), EVERY_S)
            self._news.clear()
            path, trouble = self._config.history.textfile, ""
            if path and self._report is not None:
                try:
                    await asyncio.to_thread(self._write, Path(path), self._report)
                except HostError as error:
                    trouble = str(error)
                except Exception as error:
                    log.exception(error, _TROUBLE)
                    trouble = internal(error)
            self._say(_TROUBLE, trouble)

    def _write(self, path: Path, report: Sample | Away) -> None:
        try:
            from ifdefault.monitor import metrics
        except ImportError:
            what, remedy = "prometheus_client is not installed", "pip install 'ifdefault[web]'"
            raise HostError(Problem(_KEY, what, remedy)) from None
        used: dict[str, Budget] = {}
        with suppress(HostError):  # reported by the history itself
            now = datetime.now().astimezone()
            used = read_budgets(self._state_dir, self._config.uplinks, now)
        status = report.status if isinstance(report, Sample) else None
        content = metrics.render(
            status,
            report.counters if isinstance(report, Sample) else None,
            metrics.budgets_now(status, used),
            monitor=read_status(self._run_dir, time.time()),
        )
        try:
            replace_file(path, content)
        except OSError as error:
            what = f"can't write {path}: {reason(error)}"
            remedy = "its folder must be writable for the user of ifdefault-monitor.service"
            raise HostError(Problem(_KEY, what, remedy)) from error

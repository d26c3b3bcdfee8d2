"""What the page shows of the history.

Rules: the file is read in a thread, one reading at a time, and what was read is kept for a while:
many pages cost no more than one. A history that isn't there, or can't be read, leaves out what
needs it; a disk that hangs is not waited for longer than `PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures.thread import ThreadPoolExecutor  # the module itself: before the sandbox
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from ifdefault.ipc import codec
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.report import Event
from ifdefault.model.report_text import duration, size
from ifdefault.model.usage import Usage
from ifdefault.monitor.history import reader
from ifdefault.monitor.history.budget import Budget
from ifdefault.monitor.history.budgets import read_budgets
from ifdefault.monitor.history.outage_report import outage_report
from ifdefault.monitor.history.records import Outage
from ifdefault.web.chart import SPANS, Chart, SpanName, chart
from ifdefault.web.records import (
    HistoryReport,
    OutageReport,
    history_hour,
    past_outage,
    traffic_hour,
)
from ifdefault.web.settings import UplinkSettings
from ifdefault.web.view import When, when

OUTAGE_DAYS = 90  # that are listed
PATIENCE_S = 8.0  # more than its reader has for its writer
_KEPT_S: dict[str, float] = {"hour": 10.0, "day": 30.0, "month": 60.0}
_EVENT_DAYS = 400
_lock = asyncio.Lock()
_thread = ThreadPoolExecutor(max_workers=1)  # begins with the first reading
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OutageRow:
    id: int
    path: str
    since: When
    until: When | None
    lasted: str
    cause: str


class _Kept:
    """Results of readings, for some seconds."""

    def __init__(self) -> None:
        self._results: dict[object, tuple[float, object]] = {}
        self._reading: asyncio.Future[Any] | None = None
        self._is_late = False  # it has been waited for

    async def get(self, key: object, for_s: float, read: Callable[[], T]) -> T:
        async with _lock:
            now = time.monotonic()
            self._results = {k: v for k, v in self._results.items() if v[0] > now}
            if key not in self._results:
                self._results[key] = now + for_s, await self._in_thread(read)
            result: T = self._results[key][1]  # type: ignore[assignment]
            return result

    async def _in_thread(self, read: Callable[[], T]) -> T:
        """HostError if it takes too long, or the one before still does, whose client may have
        gone: at once, if that was waited for already."""
        if self._reading is not None and not self._reading.done():
            await self._ended(self._reading)
        reading = asyncio.get_running_loop().run_in_executor(_thread, read)
        reading.add_done_callback(asyncio.Future.exception)  # retrieved, whoever waits for it
        self._reading, self._is_late = reading, False
        await self._ended(reading)
        return reading.result()

    async def _ended(self, reading: asyncio.Future[Any]) -> None:
        await asyncio.wait([reading], timeout=0.0 if self._is_late else PATIENCE_S)
        if not reading.done():
            self._is_late = True
            what = f"the history can't be read in {PATIENCE_S:g} s"
            raise HostError(Problem("", what, "see whether its disk answers"))


_kept = _Kept()


async def charts(
    state_dir: Path, uplinks: Sequence[str], span: SpanName
) -> dict[str, Chart | None]:
    """A chart for each uplink of which anything is known; HostError."""

    def read() -> dict[str, Chart | None]:
        now = time.time()
        since = now - SPANS[span]
        with reader.reading(state_dir) as history:
            found: dict[str, Chart | None] = {}
            for uplink in uplinks:
                fine = span != "month"
                intervals = (history.minutes if fine else history.hours)(since, now, uplink)
                down = history.outages(since, now, uplink)
                found[uplink] = chart(uplink, intervals, down, span, now)
            return found

    return await _kept.get(("charts", tuple(uplinks), span), _KEPT_S[span], read)


async def month_budgets(
    state_dir: Path, uplinks: Sequence[UplinkSettings], usage: Sequence[Usage]
) -> dict[str, Budget]:
    """The traffic of each uplink with a budget; HostError. `usage`: what the engine has counted."""
    limited = [uplink for uplink in uplinks if uplink.budget_bytes]

    def read() -> dict[str, Budget]:
        return read_budgets(state_dir, limited, datetime.now().astimezone(), usage)

    return await _kept.get(("budgets", tuple(limited)), 60.0, read) if limited else {}


async def budgets(
    state_dir: Path, uplinks: Sequence[UplinkSettings], usage: Sequence[Usage]
) -> dict[str, str]:
    """The same, in words."""
    try:
        found = await month_budgets(state_dir, uplinks, usage)
    except HostError:
        found = {}
    texts = {name: _budget_text(each) for name, each in found.items()}
    return {uplink.name: texts.get(uplink.name, "") for uplink in uplinks}


def _budget_text(used: Budget) -> str:
    share = 100 * used.used / used.limit
    text = f"{size(used.used)} of {size(used.limit)} used since {used.since:%d %b} ({share:.0f} %)"
    if used.used_up:
        return f"{text}; at this rate it is used up on {used.used_up:%d %b}"
    if used.forecast is not None:
        text += f"; by {used.until:%d %b} it will be {size(used.forecast)}"
    return text


async def events(state_dir: Path) -> list[Event]:
    """HostError if there is no history."""

    def read() -> list[Event]:
        now = time.time()
        with reader.reading(state_dir) as history:
            return history.events(now - _EVENT_DAYS * 86400, now + 86400)

    return await _kept.get("events", 1.0, read)


async def outages(state_dir: Path) -> list[OutageRow]:
    """The latest first; HostError if there is no history."""

    def read() -> list[OutageRow]:
        now = time.time()
        with reader.reading(state_dir) as history:
            found = history.outages(now - OUTAGE_DAYS * 86400, now)
        return [_row(outage, now) for outage in reversed(found)]

    return await _kept.get("outages", 1.0, read)


def _row(outage: Outage, now: float) -> OutageRow:
    until = None if outage.until is None else when(outage.until, now)
    lasted = duration(outage.duration_s(now))
    since = when(outage.since, now)
    return OutageRow(outage.span, str(outage.path), since, until, lasted, outage.cause)


async def report(state_dir: Path, span: int) -> tuple[str, str] | None:
    """An outage's title, and what is to be sent to the provider; HostError."""

    def read() -> tuple[str, str] | None:
        with reader.reading(state_dir) as history:
            outage = history.outage(span)
            if outage is None:
                return None
            title = f"Outage of {outage.path}, {when(outage.since).iso[:16].replace('T', ' ')} UTC"
            return title, outage_report(history, outage, socket.gethostname())

    return await _kept.get(("report", span), 1.0, read)


# --- for the API --------------------------------------------------------------------------


async def records(state_dir: Path, since: int, until: int, uplink: str) -> bytes:
    """Paths and traffic by the hour, as the JSON of a HistoryReport: a year's is long, and the loop
    doesn't wait while it is written. HostError."""

    def read() -> bytes:
        with reader.reading(state_dir) as history:
            report = HistoryReport(
                tuple(map(history_hour, history.hours(since, until, uplink))),
                tuple(map(traffic_hour, history.traffic(since, until, uplink))),
            )
        return codec.write(codec.to_json(report))

    return await _kept.get(("records", since, until, uplink), 1.0, read)


async def outage_records(state_dir: Path, since: int, until: int, uplink: str) -> OutageReport:
    """HostError if there is no history."""

    def read() -> OutageReport:
        with reader.reading(state_dir) as history:
            return OutageReport(tuple(map(past_outage, history.outages(since, until, uplink))))

    return await _kept.get(("outages", since, until, uplink), 1.0, read)

"""Follows the engine: its events as they happen, its status and counters at intervals.

    async with aclosing(follow(run_dir, after=serial)) as reports:
        async for report in reports:
            match report: NewEvents | Sample | Away | Back

Rules: the engine is asked by `status.sock` only: one request for events that waits, and one for
status and counters in `LEAST_S` at most, whatever happens. Events come in order, each once, and
after them a sample. An engine that can't be asked is one report (Away), and is asked again each
second; what happened meanwhile comes after Back, as far as the engine still has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from pathlib import Path

from ifdefault.ipc import tasks
from ifdefault.ipc.control.async_client import ask
from ifdefault.ipc.control.protocol import LONGEST_WAIT_S, Counters, EventList, Events, Status
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.report import CounterReport, DaemonStatus, Event

LEAST_S = 1.0  # between two samples
AGAIN_S = 1.0  # after a request that failed
_PATIENCE_S = 5.0  # for a reply
_LIMIT = 500  # events in a reply: as many as the engine keeps


@dataclass(frozen=True, slots=True)
class NewEvents:
    """`first`: what the engine had when it was asked for the first time, without `after`."""

    events: tuple[Event, ...]
    first: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """`at`: seconds since the epoch, when it was taken."""

    at: float
    status: DaemonStatus
    counters: CounterReport

    def epoch(self, monotonic_s: float) -> float:
        """A time of the status as seconds since the epoch."""
        return self.at - (self.status.now_s - monotonic_s)


@dataclass(frozen=True, slots=True)
class Away:
    """The engine can't be asked. `since`: when it answered last, or was asked first; `why`: no
    daemon runs, no answer, another version …"""

    since: float
    why: str


@dataclass(frozen=True, slots=True)
class Back:
    at: float


Report = NewEvents | Sample | Away | Back


async def follow(
    run_dir: Path, *, after: int | None = None, every_s: float = 15.0
) -> AsyncGenerator[Report, None]:
    """Follow the engine for good. `after`: the serial of the last event that is known; None: none
    is, so that those that the engine still has come first. Samples are taken when the clock's time
    is a multiple of `every_s`, and after events."""
    feed = _Feed(run_dir, after, every_s)
    try:
        while True:
            for report in await feed.next():
                yield report
    finally:
        await feed.close()


class _Feed:
    """Times that end in _s are monotonic."""

    def __init__(self, run_dir: Path, after: int | None, every_s: float) -> None:
        self._run_dir, self._after, self._every_s = run_dir, after, every_s
        self._waiting: asyncio.Task[EventList | IfdefaultError] | None = None
        self._sampled_s, self._due_s = float("-inf"), 0.0
        self._answered_at = time.time()
        self._is_new, self._is_away = True, False  # the engine, to us

    async def next(self) -> list[Report]:
        """What there is to report; [] if it is only time to look again."""
        try:
            if self._is_new:
                self._is_new = False
                reports = self._news(await self._events(0), new=True)
            else:
                reports = await self._wait()
        except IfdefaultError as error:
            return await self._away("; ".join(problem.what for problem in error.problems))
        self._answered_at = time.time()
        if self._is_away:
            self._is_away = False
            return [Back(self._answered_at), *reports]
        return reports

    def _events(self, wait_s: int) -> Coroutine[None, None, EventList]:
        after = -1 if self._after is None else self._after
        return ask(self._run_dir, Events(_LIMIT, after, wait_s), wait_s + _PATIENCE_S)

    async def _try_events(self, wait_s: int) -> EventList | IfdefaultError:
        try:
            return await self._events(wait_s)
        except IfdefaultError as error:
            return error

    async def _wait(self) -> list[Report]:
        """Wait for events, or until it is time for a sample."""
        if self._waiting is None:
            self._waiting = tasks.start(self._try_events(LONGEST_WAIT_S))
        due_s = max(self._due_s, self._sampled_s + LEAST_S)
        timeout = max(due_s - time.monotonic(), 0.0)
        await asyncio.wait([self._waiting], timeout=timeout)
        if self._waiting.done():
            waiting, self._waiting = self._waiting, None
            outcome = waiting.result()
            if isinstance(outcome, IfdefaultError):
                raise outcome
            return self._news(outcome)
        return [await self._sample()] if time.monotonic() >= due_s else []

    def _news(self, reply: EventList, *, new: bool = False) -> list[Report]:
        first = self._after is None
        if self._after is not None and reply.last < self._after:  # the engine lost its state
            self._after, self._is_new = -1, True
            return []
        self._after = reply.last
        if reply.events or new:
            self._due_s = 0.0
        return [NewEvents(reply.events, first)] if reply.events else []

    async def _sample(self) -> Sample:
        status = await ask(self._run_dir, Status(), _PATIENCE_S)
        counters = await ask(self._run_dir, Counters(), _PATIENCE_S)
        at, self._sampled_s = time.time(), time.monotonic()
        self._due_s = self._sampled_s + self._every_s - at % self._every_s
        return Sample(at, status, counters)

    async def _away(self, why: str) -> list[Report]:
        await self.close()  # what it would return, the next request asks for again
        was_away, self._is_away, self._is_new = self._is_away, True, True
        if was_away:
            await asyncio.sleep(AGAIN_S)
            return []
        return [Away(self._answered_at, why)]

    async def close(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await tasks.end(waiting)

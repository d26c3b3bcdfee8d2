"""What the engine reports, shared by all who look: events as they happen, its status on demand.

Rules: however many look, the engine has one request for events that waits, and is asked for its
status and counters once in `EVERY_S`, and after events in `AGAIN_S` at most. While nobody looks it
isn't asked for them at all. An engine that doesn't answer is said in words, and asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ifdefault.ipc import tasks
from ifdefault.ipc.control.async_client import ask
from ifdefault.ipc.control.protocol import (
    LONGEST_WAIT_S,
    Asks,
    Counters,
    EventList,
    Events,
    R,
    Status,
)
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.report import CounterReport, DaemonStatus, Event

EVERY_S = 1.0
AGAIN_S = 0.5  # after an event
CACHED_S = 0.2  # how old a status of the engine may be (daemon.control.server): after an event …
MOST_EVENTS = 500  # that are kept: as many as the engine does
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`at`: when it was taken, seconds since the epoch. `trouble`: why there is no status."""

    at: float
    status: DaemonStatus | None = None
    counters: CounterReport | None = None
    trouble: str = ""
    events: tuple[Event, ...] = ()  # the oldest first

    def epoch(self, monotonic_s: float) -> float:
        """A time of the status, as seconds since the epoch."""
        return self.at - (self.status.now_s - monotonic_s if self.status else 0.0)


class Live:
    """`reloaded` is called when the engine has loaded a changed config, or another engine runs.
    `tell` gets each new snapshot while somebody watches."""

    def __init__(
        self, run_dir: Path, reloaded: Callable[[], None], tell: Callable[[Snapshot], None]
    ) -> None:
        self._run_dir, self._reloaded, self._tell = run_dir, reloaded, tell
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._serial = -1
        self._snapshot = Snapshot(0.0)
        self._taken_s = float("-inf")  # monotonic
        self._lock = asyncio.Lock()
        self._watchers = 0
        self._watched = asyncio.Event()
        self._woken = asyncio.Event()

    def start(self) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        return tasks.start(self._follow()), tasks.start(self._tick())

    async def ask(self, request: Asks[R], timeout_s: float = _PATIENCE_S) -> R:
        """Ask the engine for something else."""
        return await ask(self._run_dir, request, timeout_s)

    async def snapshot(self, within_s: float = EVERY_S) -> Snapshot:
        """One that is as old as that at most."""
        async with self._lock:  # whoever comes meanwhile gets what comes now
            if time.monotonic() - self._taken_s >= within_s:
                self._snapshot = await self._take()
                self._taken_s = time.monotonic()
        return replace(self._snapshot, events=tuple(self._events))

    def forget(self) -> None:
        """What was taken is out of date."""
        self._taken_s = float("-inf")
        self._woken.set()

    def watch(self) -> None:
        """Somebody watches from now on, until `unwatch`."""
        self._watchers += 1
        self._watched.set()

    def unwatch(self) -> None:
        self._watchers -= 1
        if not self._watchers:
            self._watched.clear()

    async def _take(self) -> Snapshot:
        try:
            status = await ask(self._run_dir, Status(), _PATIENCE_S)
            counters = await ask(self._run_dir, Counters(), _PATIENCE_S)
        except IfdefaultError as error:
            return Snapshot(time.time(), trouble=said(error))
        return Snapshot(time.time(), status, counters)

    async def _tick(self) -> None:
        while True:
            await self._watched.wait()
            self._tell(await self.snapshot(EVERY_S / 2))
            again_s = time.monotonic() + AGAIN_S
            try:
                await asyncio.wait_for(self._woken.wait(), EVERY_S)
            except TimeoutError:
                continue
            self._woken.clear()  # what happens from now on may not be in the next status
            await asyncio.sleep(max(CACHED_S, again_s - time.monotonic()))
            self._taken_s = float("-inf")

    async def _follow(self) -> None:
        wait_s, was_away = 0, False  # the first answer comes at once
        while True:
            request = Events(MOST_EVENTS, self._serial, wait_s)
            try:
                reply = await ask(self._run_dir, request, wait_s + _PATIENCE_S)
            except IfdefaultError:
                if wait_s:  # it has just gone
                    self.forget()
                wait_s, was_away = 0, True
                await asyncio.sleep(EVERY_S)
                continue
            if was_away:  # it may have another config
                self._reloaded()
                was_away = False
            if reply.last < self._serial:  # the engine has lost its state, and counts anew
                self._events.clear()
                self._serial, wait_s = -1, 0
                continue
            self._receive(reply)
            wait_s = LONGEST_WAIT_S

    def _receive(self, reply: EventList) -> None:
        self._events.extend(reply.events)
        if self._serial >= 0 and reply.events:  # what was before is known
            if any(event.kind in ("reload", "config") for event in reply.events):
                self._reloaded()
            self._woken.set()
        self._serial = reply.last


def said(error: IfdefaultError) -> str:
    return "; ".join(map(str, error.problems))

"""Asks the engine in a thread of its own, so that a screen answers keys however slow that is.

Rules: what was answered is handed over through a queue, in the order in which it came.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ifdefault.ipc.control import client
from ifdefault.ipc.control.protocol import Asks, Counters, Events, Status, UplinkChanged
from ifdefault.model.errors import IfdefaultError

if TYPE_CHECKING:
    from ifdefault.model.report import CounterReport, DaemonStatus, Event
    from ifdefault.monitor.history.records import Interval

INTERVAL_S = 1.0
_LOOK_S, _CHANGE_S = 5.0, 120.0
_MOST_EVENTS = 500
_HISTORY_S, _HOUR_S = 20.0, 3600.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What the engine said. `events`: those since the reading before; `problem`: why it said
    nothing."""

    status: DaemonStatus | None = None
    counters: CounterReport | None = None
    events: tuple[Event, ...] = ()
    problem: str = ""
    minutes: tuple[Interval, ...] = ()  # of the history, now and again


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request of the operator."""

    text: str
    failed: bool = False


class Poller:
    """`notify` is called from the thread when there is something to `take`."""

    def __init__(self, run_dir: Path, state_dir: Path, notify: Callable[[], None]) -> None:
        self._run_dir, self._state_dir, self._notify = run_dir, state_dir, notify
        self._history_s = 0.0  # when it is read next
        self._said: queue.SimpleQueue[Reading | Outcome] = queue.SimpleQueue()
        self._due = threading.Event()
        self._last = -1  # serial of the last event
        threading.Thread(target=self._run, daemon=True).start()

    def take(self) -> Reading | Outcome | None:
        """What was said next; None if that is all."""
        try:
            return self._said.get_nowait()
        except queue.Empty:
            return None

    def request(self, request: Asks[UplinkChanged]) -> None:
        threading.Thread(target=self._change, args=(request,), daemon=True).start()

    def _run(self) -> None:
        while True:
            self._say(self._read())
            self._due.wait(INTERVAL_S)
            self._due.clear()

    def _say(self, said: Reading | Outcome) -> None:
        self._said.put(said)
        self._notify()

    def _read(self) -> Reading:
        try:
            status = client.ask(self._run_dir, Status(), _LOOK_S)
            counters = client.ask(self._run_dir, Counters(), _LOOK_S)
            listed = client.ask(self._run_dir, Events(_MOST_EVENTS, self._last), _LOOK_S)
            if listed.last < self._last:  # another engine, which lost its state
                listed = client.ask(self._run_dir, Events(_MOST_EVENTS), _LOOK_S)
        except IfdefaultError as error:
            return Reading(problem=str(error))
        self._last = listed.last
        return Reading(status, counters, listed.events, minutes=self._minutes())

    def _minutes(self) -> tuple[Interval, ...]:
        """The last hour of the history, if it is time to; without one, there are just samples."""
        now, epoch = time.monotonic(), time.time()
        if now < self._history_s:
            return ()
        self._history_s = now + _HISTORY_S
        from ifdefault.monitor.history.reader import reading

        try:
            with reading(self._state_dir) as reader:
                return tuple(reader.minutes(epoch - _HOUR_S, epoch))
        except IfdefaultError:
            return ()

    def _change(self, request: Asks[UplinkChanged]) -> None:
        try:
            changed = client.ask(self._run_dir, request, _CHANGE_S)
            said = Outcome(f"{changed.uplink}: {changed.was} -> {changed.state}")
        except IfdefaultError as error:
            said = Outcome(str(error), failed=True)
        self._say(said)
        self._due.set()

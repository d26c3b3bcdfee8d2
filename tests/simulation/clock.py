"""Simulated time: an event queue, and processes that wait.

Rules: what is due at one time happens in the order in which it was asked for. Incidents come from
outside and are what time never leaps over; answers (of probes, of the host) may come late.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from math import inf

Act = Callable[[], None]
Process = Iterator[float]  # yields for how many seconds it waits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._number = 0
        self._incidents: list[tuple[float, int, Act]] = []
        self._answers: list[tuple[float, int, Act]] = []

    @property
    def incident_s(self) -> float:
        return self._incidents[0][0] if self._incidents else inf

    @property
    def due_s(self) -> float:
        return min(self.incident_s, self._answers[0][0] if self._answers else inf)

    def incident(self, wait_s: float, act: Act) -> None:
        self._push(self._incidents, wait_s, act)

    def answer(self, wait_s: float, act: Act) -> None:
        self._push(self._answers, wait_s, act)

    def _push(self, heap: list[tuple[float, int, Act]], wait_s: float, act: Act) -> None:
        self._number += 1
        heapq.heappush(heap, (self.now + wait_s, self._number, act))

    def start(self, process: Process, *, routine: bool = False) -> None:
        """Run a process until it waits, and again after that. A routine is not an incident."""
        if (wait_s := next(process, None)) is not None:
            push = self.answer if routine else self.incident
            push(wait_s, lambda: self.start(process, routine=routine))

    def step(self) -> bool:
        """Run what is due first; whether it was an incident."""
        heap = self._incidents
        if self._answers and (not heap or self._answers[0][:2] < heap[0][:2]):
            heap = self._answers
        at_s, _, act = heapq.heappop(heap)
        self.now = max(self.now, at_s)
        act()
        return heap is self._incidents

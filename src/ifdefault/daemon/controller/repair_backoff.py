"""Slows down repairs of what another program keeps undoing.

Rules: what another program removed is repaired at once. If the same thing is repaired again and
again, there is a conflict with that program: it is reported, and repaired less and less often, once
a minute at last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

ROUNDS, WITHIN_S = 5, 10.0  # as many repairs of one thing within this time are a conflict
FIRST_HOLD_S, LONGEST_HOLD_S = 1.0, 60.0


class RepairBackoff:
    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}
        self._hold_s = 0.0
        self._until_s = 0.0
        self._conflicts: dict[str, float] = {}  # operation: when the conflict was seen last

    def holds(self, now: float, operations: Iterable[str]) -> bool:
        """Whether these operations have to wait: all of them are in conflict."""
        return now < self._until_s and all(o in self._conflicts for o in operations)

    @property
    def until_s(self) -> float:
        return self._until_s

    def note(self, now: float, operations: Iterable[str]) -> tuple[str, ...]:
        """Record operations that were performed as a repair; return those now in conflict."""
        conflicts = []
        for operation in operations:
            times = self._times.setdefault(operation, deque(maxlen=ROUNDS))
            times.append(now)
            # while repairs are held back, each further one belongs to the same conflict
            span_s = max(WITHIN_S, 2 * self._hold_s * ROUNDS)
            if len(times) == ROUNDS and now - times[0] <= span_s:
                conflicts.append(operation)
                self._conflicts[operation] = now
        if conflicts:
            self._hold_s = min(max(FIRST_HOLD_S, 2 * self._hold_s), LONGEST_HOLD_S)
            self._until_s = now + self._hold_s
        elif self._hold_s and now > self._until_s + self._hold_s + WITHIN_S:
            self._hold_s = 0.0
        for operation, times in list(self._times.items()):
            if now - times[-1] > 2 * LONGEST_HOLD_S * ROUNDS:
                del self._times[operation]
        return tuple(conflicts)

    def conflicts(self, now: float) -> tuple[str, ...]:
        """The operations in conflict, for the status."""
        return tuple(
            f"another program keeps undoing: {operation}"
            + (f" (next repair in {self._until_s - now:.0f} s)" if now < self._until_s else "")
            for operation, seen_s in sorted(self._conflicts.items())
            if now - seen_s < 2 * LONGEST_HOLD_S
        )

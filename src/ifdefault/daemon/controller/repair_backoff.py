"""When others undo what we do: how often we put it back, and what we say about it.

Rules: a change of ours that vanishes is put back at once; one that vanishes again and again is a
fight with another program, which nobody wins by being quick. It is told, and fought ever less
often, once a minute in the end. Pure: `now` is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

ROUNDS, WITHIN_S = 5, 10.0  # the same thing put back so often in so long is a fight
FIRST_HOLD_S, LONGEST_HOLD_S = 1.0, 60.0


class RepairBackoff:
    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}
        self._hold_s = 0.0
        self._until_s = 0.0
        self._over_what: dict[str, float] = {}  # operation, when it was fought over last

    def holds(self, now: float, operations: Iterable[str]) -> bool:
        """Whether to wait with these: they are what is fought over, and nothing else."""
        return now < self._until_s and all(each in self._over_what for each in operations)

    @property
    def until_s(self) -> float:
        return self._until_s

    def note(self, now: float, operations: Iterable[str]) -> tuple[str, ...]:
        """Operations were performed only because something had been undone; return those that are
        a fight by now."""
        fought = []
        for operation in operations:
            times = self._times.setdefault(operation, deque(maxlen=ROUNDS))
            times.append(now)
            # while we hold back, each further time is part of the same fight
            span_s = max(WITHIN_S, 2 * self._hold_s * ROUNDS)
            if len(times) == ROUNDS and now - times[0] <= span_s:
                fought.append(operation)
                self._over_what[operation] = now
        if fought:
            self._hold_s = min(max(FIRST_HOLD_S, 2 * self._hold_s), LONGEST_HOLD_S)
            self._until_s = now + self._hold_s
        elif self._hold_s and now > self._until_s + self._hold_s + WITHIN_S:
            self._hold_s = 0.0
        for operation, times in list(self._times.items()):
            if now - times[-1] > 2 * LONGEST_HOLD_S * ROUNDS:
                del self._times[operation]
        return tuple(fought)

    def told(self, now: float) -> tuple[str, ...]:
        """What is being fought over, for people."""
        return tuple(
            f"another program keeps undoing: {operation}"
            + (f" (next repair in {self._until_s - now:.0f} s)" if now < self._until_s else "")
            for operation, last in sorted(self._over_what.items())
            if now - last < 2 * LONGEST_HOLD_S
        )

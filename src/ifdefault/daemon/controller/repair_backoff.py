"""Slows down repairs of what another program keeps undoing.

Rules: what another program removed is repaired at once. If the same thing is repaired again and
again, there is a conflict with that program: it is reported, and repaired less and less often, once
a minute at last. Different texts of an nft table are different things: the host changed, nobody
undid anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from ifdefault.model.kernel import ForgetFlows, LoadNft, Operation, ruleset_digest
from ifdefault.plan.describe import describe

ROUNDS, WITHIN_S = 5, 10.0  # as many repairs of one thing within this time are a conflict
FIRST_HOLD_S, LONGEST_HOLD_S = 1.0, 60.0


class RepairBackoff:
    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}
        self._hold_s = 0.0
        self._until_s = 0.0
        # key: the operation, and when the conflict was seen last
        self._conflicts: dict[str, tuple[str, float]] = {}

    def holds(self, now: float, operations: Iterable[Operation]) -> bool:
        """Whether these operations have to wait: all of them are in conflict."""
        return now < self._until_s and self._conflicts.keys() >= _repairs(operations).keys()

    @property
    def until_s(self) -> float:
        return self._until_s

    def note(self, now: float, operations: Iterable[Operation]) -> tuple[str, ...]:
        """Record operations that were performed as a repair; return those now in conflict."""
        conflicts = []
        for key, operation in _repairs(operations).items():
            times = self._times.setdefault(key, deque(maxlen=ROUNDS))
            times.append(now)
            # while repairs are held back, each further one belongs to the same conflict
            span_s = max(WITHIN_S, 2 * self._hold_s * ROUNDS)
            if len(times) == ROUNDS and now - times[0] <= span_s:
                conflicts.append(operation)
                self._conflicts[key] = operation, now
        if conflicts:
            self._hold_s = min(max(FIRST_HOLD_S, 2 * self._hold_s), LONGEST_HOLD_S)
            self._until_s = now + self._hold_s
        elif self._hold_s and now > self._until_s + self._hold_s + WITHIN_S:
            self._hold_s = 0.0
        for key, times in list(self._times.items()):
            if now - times[-1] > 2 * LONGEST_HOLD_S * ROUNDS:
                del self._times[key]
        return tuple(conflicts)

    def conflicts(self, now: float) -> tuple[str, ...]:
        """The operations in conflict, for the status."""
        return tuple(
            f"another program keeps undoing: {operation}"
            + (f" (next repair in {self._until_s - now:.0f} s)" if now < self._until_s else "")
            for operation, seen_s in sorted(self._conflicts.values())
            if now - seen_s < 2 * LONGEST_HOLD_S
        )


def _repairs(operations: Iterable[Operation]) -> Mapping[str, str]:
    """The operations as text, by what identifies them."""
    repairs = {}
    for operation in operations:
        match operation:
            case ForgetFlows():
                pass  # follows another operation
            case LoadNft(text=text):
                repairs[f"{describe(operation)} {ruleset_digest(text)}"] = describe(operation)
            case _:
                repairs[describe(operation)] = describe(operation)
    return repairs

"""How much the engine takes from a process that may be compromised (decision 42).

Rules: pure. An answer needs a request, and what comes unasked comes at a rate. Whoever exceeds that
is ended like one that sends garbage.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ifdefault.ipc.messages import Fetch, Ping, Query, Resolve, Send, Update

TOO_MANY_ANSWERS = "it sent more answers than there were requests"
# how many answers to each request: a probe that was lost may be answered late
ANSWERS: Mapping[type[Any], int] = MappingProxyType(
    {Send: 2, Resolve: 1, Update: 1, Query: 1, Fetch: 1, Ping: 1}
)
_MOST_OWED = 16384  # of the second answers to probes, most never come


class Owed:
    """The number of answers that a process owes."""

    def __init__(self) -> None:
        self._number = 0

    def ask(self, message: object) -> None:
        self._number = min(self._number + ANSWERS.get(type(message), 0), _MOST_OWED)

    def answer(self) -> bool:
        """Whether there was a request for one more answer."""
        self._number -= 1
        return self._number >= 0


class Allowance:
    """A token bucket: `most` at once, and so many a second in the long run."""

    def __init__(self, most: int, per_s: float) -> None:
        self._most, self._per_s = most, per_s
        self._left, self._at_s = float(most), 0.0
        self.refused = 0  # in all; the caller may reset it

    def take(self, now: float) -> bool:
        self._left = min(self._most, self._left + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        return True

"""Simulated links that lose packets, for our failure detector and the peers' rules.

Rules: `lost` is called once for each probe, in the order of sending. `spare` predicts how many of
the next probes are answered, so that they needn't be simulated one by one; `skip` consumes them.
Equal seeds and equal times give equal losses.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol


class LossModel(Protocol):
    def lost(self, at_s: float) -> bool:
        """Whether a probe that is sent at `at_s` is lost."""

    def spare(self, at_s: float, every_s: float) -> int:
        """How many probes, one every `every_s` from `at_s` on, are answered before a loss."""

    def skip(self, probes: int) -> None:
        """Consume so many of them."""


class Independent:
    """Each probe is lost with the same probability, independent of the others."""

    def __init__(self, ratio: float, seed: int) -> None:
        self._random = random.Random(seed).random
        self._log = math.log1p(-ratio) if ratio else 0.0
        self._left = self._gap()

    def _gap(self) -> int:
        return int(math.log(1.0 - self._random()) / self._log) if self._log else 10**12

    def lost(self, at_s: float) -> bool:
        if self._left:
            self._left -= 1
            return False
        self._left = self._gap()
        return True

    def spare(self, at_s: float, every_s: float) -> int:
        return self._left

    def skip(self, probes: int) -> None:
        self._left -= probes


class Bursts:
    """Gilbert-Elliott with total loss in bursts and none between them: lengths and gaps are
    exponential."""

    def __init__(self, mean_s: float, every_s: float, seed: int) -> None:
        self._random = random.Random(seed)
        self._mean_s, self._gap_s = mean_s, every_s - mean_s
        self._end_s = 0.0
        self._next()

    def _next(self) -> None:
        self._start_s = self._end_s + self._random.expovariate(1 / self._gap_s)
        self._end_s = self._start_s + self._random.expovariate(1 / self._mean_s)

    def lost(self, at_s: float) -> bool:
        while at_s >= self._end_s:
            self._next()
        return at_s >= self._start_s

    def spare(self, at_s: float, every_s: float) -> int:
        while at_s >= self._end_s:
            self._next()
        return max(0, math.ceil((self._start_s - at_s) / every_s))

    def skip(self, probes: int) -> None:
        pass


class Policed:
    """A link that drops probes of more than POLICED_PER_S a second, after a burst of as many."""

    def __init__(self, link: LossModel) -> None:
        self._link = link
        self._tokens, self._at_s = POLICED_PER_S, 0.0

    def lost(self, at_s: float) -> bool:
        earned = POLICED_PER_S * (at_s - self._at_s)
        self._tokens, self._at_s = min(POLICED_PER_S, self._tokens + earned), at_s
        if self._tokens < 1.0:
            return True
        self._tokens -= 1.0
        return self._link.lost(at_s)

    def spare(self, at_s: float, every_s: float) -> int:
        return self._link.spare(at_s, every_s)  # quiet rounds aren't policed

    def skip(self, probes: int) -> None:
        self._link.skip(probes)


class Dying:
    """A link until it dies."""

    def __init__(self, link: LossModel, dies_s: float) -> None:
        self._link, self._dies_s = link, dies_s

    def lost(self, at_s: float) -> bool:
        return at_s >= self._dies_s or self._link.lost(at_s)

    def spare(self, at_s: float, every_s: float) -> int:
        alive = max(0, math.ceil((self._dies_s - at_s) / every_s))
        return min(alive, self._link.spare(at_s, every_s))

    def skip(self, probes: int) -> None:
        self._link.skip(probes)


BURST_S, BURST_EVERY_S = 0.2, 600.0
POLICED_PER_S = 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of link: independent loss of this ratio, or bursts. `name` is for tables."""

    name: str
    ratio: float = 0.0
    bursts: bool = False
    policed: bool = False

    def make(self, seed: int) -> LossModel:
        if self.bursts:
            return Bursts(BURST_S, BURST_EVERY_S, seed)
        link = Independent(self.ratio, seed)
        return Policed(link) if self.policed else link


CLEAN = Case("no loss")
ONE_PERCENT = Case("1 % loss", 0.01)
BURSTY = Case("bursts", bursts=True)
POLICED = Case("12 % loss each way, policed", 1 - 0.88**2, policed=True)
CASES = (CLEAN, ONE_PERCENT, Case("5 % loss", 0.05), Case("20 % loss", 0.2), BURSTY)

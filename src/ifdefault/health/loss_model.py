"""The usual loss of a path, and by how much a run of lost rounds exceeds it.

The failure detector is a CUSUM test: the sum over a run of losses of the log-likelihood ratio of
"the path is down" (every round is lost) against "this is the usual loss". An answer is impossible
on a path that is down, so it ends the run and resets the sum. On a path that is up, a round after
an answered one is lost with a certain probability, and a round after a lost one with a probability
that depends on the length of the run. Both are estimated per path, starting with a prior: single
losses, bursts, and a mixture of them are distinguished without a model of either.

Rules: on a path that is up, the sum exceeds `threshold` once in `days` on average, if losses are as
learned (Lorden, 1971: the mean time between false alarms of a CUSUM test is at least exp(threshold)
rounds). The model learns from runs that ended; outages aren't learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Probability that a round after an answered one is lost: the prior, its weight in rounds, and the
# lower bound.
FIRST = 0.01
FIRST_ROUNDS = 200
FIRST_LEAST = 0.005
# Two averages, with their length in rounds: the longer one is precise, the shorter one adapts to a
# path that gets worse. The greater of the two counts.
SLOW_ROUNDS = 20_000
FAST_ROUNDS = 600
# of a new path, the share of so many losses counts, without the prior
FIRST_LOSSES = 2.5
FIRST_SHARE_MOST = 0.5
# A path is lossy if it loses more than LOSSY, or more than LOSSY_POLICED and, more often than not,
# the round after a loss.
LOSSY = 0.07
LOSSY_POLICED = 0.0075

# Probability that a round after a lost one is lost too: its bounds, and the weight of the prior in
# losses, small so that a few bursts are enough to learn from. With bursts of 200 ms the probability
# is 0.78. Half a day is the shortest memory without too many false alarms from such bursts.
NEXT_LEAST = 0.14
NEXT_MOST = 0.85
NEXT_WEIGHT = 3.0
NEXT_MEMORY = 4000.0  # losses
NEXT_MEMORY_S = 12 * 3600.0
# Losses are counted by their position n in the run, in bins by its bit length: 1, 2-3, 4-7 … 32-
BINS = 6

_FLAT = (0.0,) * (2 * BINS)


def threshold(days: float, rounds_per_s: float) -> float:
    """The sum at which a path is declared down, for a mean of `days` between false alarms."""
    return max(6.0, math.log(days * 86400.0 * rounds_per_s))


class LossModel:
    """The usual loss of one path, as learned. `learned` is the state of an earlier model."""

    def __init__(self, learned: Sequence[float] = ()) -> None:
        self._slow = self._fast = FIRST
        self._slow_n = self._fast_n = float(FIRST_ROUNDS)
        self._at_s = 0.0
        counts: Sequence[float] = _FLAT
        if len(learned) == 5 + 2 * BINS and all(0 <= value < math.inf for value in learned):
            self._slow, self._fast = min(learned[0], 1.0), min(learned[2], 1.0)
            self._slow_n = min(max(learned[1], FIRST_ROUNDS), SLOW_ROUNDS)
            self._fast_n = min(max(learned[3], FIRST_ROUNDS), FAST_ROUNDS)
            self._at_s = learned[4]
            counts = learned[5:]
        self._lasted, self._ended = list(counts[:BINS]), list(counts[BINS:])
        self._steps: list[float] = []
        self._update_weights()

    def learned(self) -> tuple[float, ...]:
        """The state, to create a LossModel that continues from here."""
        first = (self._slow, self._slow_n, self._fast, self._fast_n, self._at_s)
        return (*first, *self._lasted, *self._ended)

    @property
    def first(self) -> float:
        """The probability that a round is lost if the previous one was answered."""
        share, rounds = 0.0, self._fast_n - FIRST_ROUNDS
        if 0 < rounds < FAST_ROUNDS - FIRST_ROUNDS:
            losses = self._fast * self._fast_n - FIRST * FIRST_ROUNDS
            share = min(losses / rounds, FIRST_SHARE_MOST) if losses > FIRST_LOSSES else 0.0
        return min(max(self._slow, self._fast, share, FIRST_LEAST), 0.95)

    @property
    def lossy(self) -> bool:
        """Whether so many rounds are lost that with probes that are policed, too, the path might
        look down."""
        policed = self._steps[0] < math.log(2)
        return self.first > (LOSSY_POLICED if policed else LOSSY)

    def weight(self, nth: int) -> float:
        """The log-likelihood ratio of the nth loss in a row, counted from 0."""
        if nth == 0:
            return -math.log(self.first)
        return self._steps[min(nth.bit_length(), BINS) - 1]

    def record_answers(self, rounds: int = 1) -> None:
        """So many rounds were answered, each after an answered one."""
        if rounds == 1:
            self._count_first(0.0)
            return
        # The same in one step: each 0 multiplies by 1 - 1/n, with n growing up to its limit.
        for name, limit in (("_slow", SLOW_ROUNDS), ("_fast", FAST_ROUNDS)):
            n = getattr(self, f"{name}_n")
            growing = min(rounds, max(0, limit - int(n)))
            share = n / (n + growing) * (1 - 1 / limit) ** (rounds - growing)
            setattr(self, name, getattr(self, name) * share)
            setattr(self, f"{name}_n", n + growing)

    def record_run(self, now: float, losses: int) -> None:
        """An answer ended a run of so many lost rounds, during which the path was up."""
        self._count_first(1.0)
        self._age(now)
        for nth in range(1, losses):
            self._lasted[min(nth.bit_length(), BINS) - 1] += 1
        self._ended[min(losses.bit_length(), BINS) - 1] += 1
        self._update_weights()

    def _count_first(self, lost: float) -> None:
        if self._slow_n < SLOW_ROUNDS:
            self._slow_n += 1
        if self._fast_n < FAST_ROUNDS:
            self._fast_n += 1
        self._slow += (lost - self._slow) / self._slow_n
        self._fast += (lost - self._fast) / self._fast_n

    def _age(self, now: float) -> None:
        """Decay the counts with time, and limit their total."""
        fade = math.exp(min(0.0, self._at_s - now) / NEXT_MEMORY_S)
        self._at_s = now
        for bin_ in range(BINS):
            total = self._lasted[bin_] + self._ended[bin_]
            keep = fade if total < NEXT_MEMORY else fade * NEXT_MEMORY / total
            self._lasted[bin_] *= keep
            self._ended[bin_] *= keep

    def _update_weights(self) -> None:
        """Compute the weight of each bin; its prior is the previous bin (long runs continue)."""
        share, self._steps = NEXT_LEAST, []
        least = max(NEXT_LEAST, self.first)
        for lasted, ended in zip(self._lasted, self._ended, strict=True):
            share = (lasted + NEXT_WEIGHT * share) / (lasted + ended + NEXT_WEIGHT)
            share = min(max(share, least), NEXT_MOST)
            self._steps.append(-math.log(share))

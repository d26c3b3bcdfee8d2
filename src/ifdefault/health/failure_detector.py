"""The failure detector of a path: decides by runs of lost rounds, and keeps track of suspects.

Rules: a run means that the path is down if it exceeds the usual loss of the path *and* its first
round has been unanswered for longer than any expected delay; after LONGEST_S in any case. An answer
clears the losses up to the time when its probe was sent. A suspected path is probed in a burst for
a while; suspicion alone never brings it down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ifdefault.health.loss_model import LossModel

# The first lost round must be unanswered for at least this long, whatever the sum: a filling
# queue may delay answers by as much from one round to the next.
PATIENCE_S = 0.42
PATIENCE_RTTS = 1.2  # or for this multiple of the slowest recent round trip, …
PATIENCE_MOST_S = 1.5  # … up to this limit, unless all recent answers were as slow
SLOWEST_FADE = 0.999  # decay of the slowest round trip per answer

LONGEST_S = 3.0  # a silence of several rounds for this long is a failure of any path
LONGEST_ROUNDS = 7

SUSPECTED_S = 3.0  # how long a path is suspect
SUSPECTED_AGAIN_S = 10.0  # minimum time between bursts for the same cause
STALE_S = 5.0  # a run without outcomes for this long is dropped


@dataclass(slots=True)
class FailureDetector:
    """`run`: when the lost rounds were sent; `clear_s`: when the latest answered probe was sent;
    `threshold`: the sum of the run's weights that exceeds the usual loss; `floor_s`: the fastest of
    the recent answers."""

    loss_model: LossModel
    threshold: float
    run: list[float] = field(default_factory=list)
    clear_s: float = -math.inf
    _sum: float = 0.0
    floor_s: float = 0.0
    _slowest_s: float = 0.0
    _suspected_s: float = -math.inf
    _again_s: dict[str, float] = field(
        default_factory=dict
    )  # by cause: when it may start a burst again

    def suspects(self, now: float) -> bool:
        return bool(self.run) or now < self._suspected_s + SUSPECTED_S

    @property
    def deadline_s(self) -> float:
        """When the path is declared down unless an answer comes; inf if too few rounds are lost."""
        if self._sum >= self.threshold:
            slow_s = min(PATIENCE_RTTS * self._slowest_s, PATIENCE_MOST_S)
            usual_s = min(PATIENCE_RTTS * self.floor_s, LONGEST_S)
            return self.run[0] + max(PATIENCE_S, slow_s, usual_s)
        if len(self.run) >= LONGEST_ROUNDS:
            return self.run[0] + LONGEST_S
        return math.inf

    def record_loss(self, at_s: float) -> None:
        """The round sent at `at_s` was lost."""
        self._sum += self.loss_model.weight(len(self.run))
        self.run.append(at_s)

    def record_answer(self, now: float, at_s: float, *, late: bool) -> None:
        """A probe sent at `at_s` was answered. `late`: it had been counted as lost, which isn't a
        loss to learn."""
        if at_s > self.clear_s:
            self.clear_s = at_s
        if self._suspected_s <= at_s:
            self._suspected_s = -math.inf
        if not self.run or self.run[0] > at_s:
            return
        remaining = [sent_s for sent_s in self.run if sent_s > at_s]
        ended = len(self.run) - len(remaining) - late
        if ended:
            self.loss_model.record_run(now, ended)
        self.run = remaining
        self._sum = sum(map(self.loss_model.weight, range(len(remaining))))

    def record_rtt(self, rtt_s: float) -> None:
        """An answer took `rtt_s`."""
        self._slowest_s = max(self._slowest_s * SLOWEST_FADE, rtt_s)

    def suspect(self, now: float, cause: str) -> bool:
        """Make the path suspect; False if it was suspected for the same cause recently."""
        if now < self._again_s.get(cause, -math.inf):
            return False
        self._again_s[cause] = now + SUSPECTED_AGAIN_S
        if now >= self._suspected_s + SUSPECTED_S:
            self._suspected_s = now
        return True

    def drop_stale(self, now: float) -> None:
        """Drop a run without recent outcomes, which would keep the burst going forever."""
        if self.run and now > self.run[-1] + STALE_S:
            self.reset()

    def reset(self) -> None:
        self.run, self._sum = [], 0.0
        self._suspected_s = -math.inf

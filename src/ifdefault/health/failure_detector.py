"""What speaks against a path at present: a run of lost rounds, or a suspicion.

Rules: a run means that the path is down when it goes beyond what the line normally loses *and* its
first round is overdue by any delay that is to be expected; after LONGEST_S in any case. An answer
clears what was sent until then. A suspicion has the path probed in a burst, and is forgotten; it
never brings a path down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ifdefault.health.loss_model import LossModel

# The first of the lost rounds is unanswered for at least so long, whatever the sum says: a queue
# that fills may delay answers by as much from one round to the next.
PATIENCE_S = 0.42
PATIENCE_RTTS = 1.2  # or for so many of the slowest round trips lately, which
PATIENCE_MOST_S = 1.2
SLOWEST_FADE = 0.999  # … fade with each answer

LONGEST_S = 3.0  # so long a silence, of several rounds, is normal for no line, whatever it showed
LONGEST_ROUNDS = 7

SUSPECTED_S = 3.0  # it is forgotten, if nothing comes of it
SUSPECTED_AGAIN_S = 10.0  # one cause starts no two bursts within that
STALE_S = 5.0  # a run that nothing was heard of since


@dataclass(slots=True)
class FailureDetector:
    """`run` holds when the lost rounds were sent; `clear_s` is when the latest was sent that got
    an answer; `threshold` is the sum of their weights that is beyond the normal."""

    loss_model: LossModel
    threshold: float
    run: list[float] = field(default_factory=list)
    clear_s: float = -math.inf
    _sum: float = 0.0
    _slowest_s: float = 0.0
    _early_s: float = math.inf
    _suspected_s: float = -math.inf
    _again_s: dict[str, float] = field(default_factory=dict)  # by cause: when it counts again

    def suspects(self, now: float) -> bool:
        return bool(self.run) or now < self._suspected_s + SUSPECTED_S

    @property
    def deadline_s(self) -> float:
        """From when on the path is down, if nothing is heard: infinite while too little is lost."""
        if self._sum >= self.threshold:
            early_s = self._early_s if self._early_s < math.inf else 0.0
            slow_s = min(PATIENCE_RTTS * max(self._slowest_s, early_s), PATIENCE_MOST_S)
            return self.run[0] + max(PATIENCE_S, slow_s)
        if len(self.run) >= LONGEST_ROUNDS:
            return self.run[0] + LONGEST_S
        return math.inf

    def lose(self, at_s: float) -> None:
        """A round that was sent at `at_s` was lost."""
        self._sum += self.loss_model.weight(len(self.run))
        self.run.append(at_s)

    def answer(self, now: float, at_s: float, *, late: bool, teaches: bool) -> None:
        """Something that was sent at `at_s` was answered; `late`: after it had been taken for
        lost, which is no loss to learn from."""
        if at_s > self.clear_s:
            self.clear_s = at_s
        if self._suspected_s <= at_s:
            self._suspected_s = -math.inf
        if not self.run or self.run[0] > at_s:
            return
        left = [sent_s for sent_s in self.run if sent_s > at_s]
        ended = len(self.run) - len(left) - late
        if ended and teaches:
            self.loss_model.ended(now, ended)
        self.run = left
        self._sum = sum(map(self.loss_model.weight, range(len(left))))

    def time(self, rtt_s: float, *, early: bool) -> None:
        """An answer took so long. `early`: it was asked for while the path was down, and may have
        waited for that to end. Of several such answers the quickest counts, until there are others.
        """
        if early:
            self._early_s = min(self._early_s, rtt_s)
        else:
            self._slowest_s = max(self._slowest_s * SLOWEST_FADE, rtt_s)
            self._early_s = math.inf

    def suspect(self, now: float, cause: str) -> bool:
        """Look closer for `cause`; False if it was suspected for that lately."""
        if now < self._again_s.get(cause, -math.inf):
            return False
        self._again_s[cause] = now + SUSPECTED_AGAIN_S
        if now >= self._suspected_s + SUSPECTED_S:
            self._suspected_s = now
        return True

    def forget_stale(self, now: float) -> None:
        """Forget a run that nothing was heard of since: it would ask in a burst for ever."""
        if self.run and now > self.run[-1] + STALE_S:
            self.reset()

    def reset(self) -> None:
        self.run, self._sum = [], 0.0
        self._suspected_s = -math.inf

"""Loss and delay of a path that works, and whether it is degraded by them.

Rules: only rounds at the quiet pace count, since those of a burst follow a loss and would tell too
much of it. A limit is passed by much quickly (20 s), by little slowly (60 s), and left only when
it is undercut by far.
"""

from __future__ import annotations

from ifdefault.model.config import HealthConfig

QUICK_S = 20.0
SLOW_S = 60.0
MUCH = 1.5
LEAVE_QUICK, LEAVE_SLOW = 0.5, 0.75
LEAVE_RTT = 0.8


class Degradation:
    """Two running means of loss, and one of the round trip."""

    def __init__(self, config: HealthConfig) -> None:
        self._limit = config.degraded_loss
        self._limit_s = config.degraded_rtt_ms / 1000
        rounds = config.rounds_per_s
        self._steps = 1 / max(1.0, QUICK_S * rounds), 1 / max(1.0, SLOW_S * rounds)
        self._quick = self._slow = self._rtt_s = 0.0
        self.worse = ""  # why it is degraded, for people

    @property
    def loss_ratio(self) -> float:
        return self._quick

    def reset(self) -> None:
        self._quick = self._slow = self._rtt_s = 0.0
        self.worse = ""

    def count(self, lost: float, rtt_s: float) -> None:
        """A quiet round was answered (0) after `rtt_s`, or lost (1)."""
        quick, slow = self._steps
        self._quick += (lost - self._quick) * quick
        self._slow += (lost - self._slow) * slow
        if rtt_s:
            self._rtt_s += (rtt_s - self._rtt_s) * (quick if self._rtt_s else 1.0)
        self.worse = self._why()

    def _why(self) -> str:
        limit, limit_s = self._limit, self._limit_s
        quick, slow = (LEAVE_QUICK, LEAVE_SLOW) if self.worse else (MUCH, 1.0)
        if limit and (self._quick > limit * quick or self._slow > limit * slow):
            return f"loss {max(self._quick, self._slow):.0%}"
        if limit_s and self._rtt_s > limit_s * (LEAVE_RTT if self.worse else 1.0):
            return f"round trip {self._rtt_s * 1000:.0f} ms"
        return ""

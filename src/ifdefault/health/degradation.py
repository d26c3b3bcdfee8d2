"""Loss and round trip of a path that works, and whether it is degraded.

Rules: only rounds at the quiet pace count, since a burst follows a loss and would overstate it. A
limit that is exceeded by far is detected within 20 s, by little within 60 s. The path remains
degraded until it is well below the limits.
"""

from __future__ import annotations

from ifdefault.model.config import HealthConfig

FAST_S = 20.0
SLOW_S = 60.0
FAST_ENTER = 1.5  # loss by the fast mean, in units of the limit
LEAVE_FAST, LEAVE_SLOW = 0.5, 0.75
LEAVE_RTT = 0.8


class Degradation:
    """Two moving averages of loss, and one of the round trip."""

    def __init__(self, config: HealthConfig) -> None:
        self._limit = config.degraded_loss
        self._limit_s = config.degraded_rtt_ms / 1000
        rounds = config.rounds_per_s
        self._steps = 1 / max(1.0, FAST_S * rounds), 1 / max(1.0, SLOW_S * rounds)
        self._fast = self._slow = self._rtt_s = 0.0
        self.cause = ""  # why the path is degraded, for display; "" if it isn't

    @property
    def loss_ratio(self) -> float:
        return self._fast

    def reset(self) -> None:
        self._fast = self._slow = self._rtt_s = 0.0
        self.cause = ""

    def record(self, lost: float, rtt_s: float) -> None:
        """A round at the quiet pace was answered (0) after `rtt_s`, or lost (1)."""
        fast, slow = self._steps
        self._fast += (lost - self._fast) * fast
        self._slow += (lost - self._slow) * slow
        if rtt_s:
            self._rtt_s += (rtt_s - self._rtt_s) * (fast if self._rtt_s else 1.0)
        self.cause = self._degraded_cause()

    def forget_loss(self) -> None:
        """A round that was recorded as lost was answered late."""
        self._fast = max(0.0, self._fast - self._steps[0])
        self._slow = max(0.0, self._slow - self._steps[1])

    def _degraded_cause(self) -> str:
        limit, limit_s = self._limit, self._limit_s
        fast, slow = (LEAVE_FAST, LEAVE_SLOW) if self.cause else (FAST_ENTER, 1.0)
        if limit and (self._fast > limit * fast or self._slow > limit * slow):
            return f"loss {max(self._fast, self._slow):.0%}"
        if limit_s and self._rtt_s > limit_s * (LEAVE_RTT if self.cause else 1.0):
            return f"round trip {self._rtt_s * 1000:.0f} ms"
        return ""

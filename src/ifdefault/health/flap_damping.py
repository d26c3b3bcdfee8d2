"""How long a path that was down must work until it is up: longer with each failure.

Rules: each failure within FLAP_S doubles the hold. Only time that the path is up counts for FLAP_S,
so that long holds and short times up don't make it forget.
"""

from __future__ import annotations

from collections.abc import Iterable

from ifdefault.health.probe_schedule import WAITING_S
from ifdefault.model.config import HealthConfig

FLAP_S = 600.0
_FALLS = 32  # remembered


class FlapDamping:
    """`falls_s`: when the path went down; the earlier ones are postponed by the time for which it
    wasn't up."""

    def __init__(self, config: HealthConfig, falls_s: Iterable[float] = ()) -> None:
        self._config = config
        self.falls_s = tuple(falls_s)

    @property
    def hold_s(self) -> float:
        config, falls = self._config, len(self.falls_s)
        damped_s = min(config.recover_s * 2.0 ** max(0, falls - 1), config.damp_s)
        return max(config.recover_s, damped_s, WAITING_S)

    def record_fall(self, now: float) -> None:
        recent = [at for at in self.falls_s if now - at < FLAP_S]
        self.falls_s = (*recent[1 - _FALLS :], now)

    def record_end(self, now: float) -> None:
        """The recovery has ended: the path is up, or down again."""
        if self.falls_s:
            not_up_s = now - self.falls_s[-1]
            self.falls_s = tuple(at + not_up_s for at in self.falls_s)

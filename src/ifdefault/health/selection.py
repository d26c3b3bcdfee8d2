"""Which uplinks to use, from their health and what the operator wants.

Rules: pure, and without memory: the same candidates give the same decision, so that a daemon that
has just started decides as one that has run for long, and all comes back after a failure just as
it was. Where nothing at all is usable, the default stays with the uplink that went down last (fail
static): a judgement that everything is dead is more likely wrong than useful.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision, Forced, PathState

# The best tier first. The operator's word comes before what is observed.
_OBSERVED: dict[PathState, int] = {
    "up": 0,
    "degraded": 0,
    "unproven": 1,
    "recovering": 2,
    "down": 4,
}
_FORCED: dict[Forced, int] = {"up": 0, "drain": 3, "down": 6}
_DRAINED, _DOWN, _DRAINED_DOWN, _FORCED_DOWN = 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Candidate:
    """An uplink in one family, as a choice. Candidates come in the order of the config."""

    uplink: str
    family: Family
    rank: int = 0
    weight: int = 1
    carrier: bool = True
    state: PathState = "unproven"
    forced: Forced = "auto"
    down_since_s: float = 0.0  # of one whose state is "down"

    @property
    def tier(self) -> int:
        """0 is best; from _DRAINED on it isn't to be used. What is drained still works, and so
        comes before what is down."""
        tier = _FORCED.get(self.forced, _OBSERVED[self.state])
        return _DRAINED_DOWN if tier == _DRAINED and self.state == "down" else tier

    @property
    def key(self) -> tuple[int, float, bool, int, bool, int]:
        worse = self.state == "degraded" and self.forced != "up"
        fell_s = self.down_since_s if self.state == "down" else math.inf
        recency = -fell_s if self.tier >= _DOWN else 0.0
        return self.tier, recency, not self.carrier, self.rank, worse, -self.weight


def decide(candidates: Sequence[Candidate]) -> Decision:
    """Order the candidates of each family, best first, and tell which may be used.

    `usable` are those that are up, degraded, forced up, or unproven; else those that recover; else
    those that are drained but work; else (fail static) all that the operator didn't take out; else
    all. It opens the order."""
    order: list[tuple[Family, tuple[str, ...]]] = []
    usable: list[tuple[Family, tuple[str, ...]]] = []
    for family in FAMILIES:
        mine = [c for c in candidates if c.family == family]
        if not mine:
            continue
        ranked = sorted(mine, key=lambda c: c.key)  # stable: the config's order decides last
        best = ranked[0].tier
        worst = max(best, 1) if best <= _DOWN else _FORCED_DOWN
        order.append((family, tuple(c.uplink for c in ranked)))
        usable.append((family, tuple(c.uplink for c in ranked if c.tier <= worst)))
    return Decision(tuple(order), tuple(usable))

"""Which uplinks to use, by their health and the operator's commands.

Rules: pure and stateless: the same candidates give the same decision, so that a daemon that has
just started decides like one that has run for long, and after a failure everything returns to the
previous state. If no uplink is usable, the one that went down last remains primary (fail static):
that all uplinks are down is more likely a false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision, Forced, PathState

# The best tier first. The operator's command overrides the observed state.
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
    """An uplink in one family. Candidates are in the order of the config."""

    uplink: str
    family: Family
    rank: int = 0
    weight: int = 1
    carrier: bool = True
    state: PathState = "unproven"
    forced: Forced = "auto"
    down_since_s: float = 0.0  # if the state is "down"
    standby: bool = False  # used where no other works, as it costs by volume

    @property
    def tier(self) -> int:
        """0 is best; from _DRAINED on it isn't used. A drained uplink still works, and so precedes
        uplinks that are down."""
        tier = _FORCED.get(self.forced, _OBSERVED[self.state])
        return _DRAINED_DOWN if tier == _DRAINED and self.state == "down" else tier

    @property
    def key(self) -> tuple[int, float, bool, bool, int, bool, int]:
        degraded = self.state == "degraded" and self.forced != "up"
        went_down_s = self.down_since_s if self.state == "down" else math.inf
        recency = -went_down_s if self.tier >= _DOWN else 0.0
        preference = self.stands_by, self.rank, degraded, -self.weight
        return self.tier, recency, not self.carrier, *preference

    @property
    def stands_by(self) -> bool:
        return self.standby and self.forced != "up"


def decide(candidates: Sequence[Candidate]) -> Decision:
    """Order the candidates of each family, best first, and decide which are usable.

    `usable` are those that are up, degraded, forced up, or unproven; if there are none, those that
    are recovering; then those that are drained but work; then (fail static) all that the operator
    didn't take down; then all. A standby isn't, as long as another is. They come first in the
    order."""
    order: list[tuple[Family, tuple[str, ...]]] = []
    usable: list[tuple[Family, tuple[str, ...]]] = []
    for family in FAMILIES:
        of_family = [c for c in candidates if c.family == family]
        if not of_family:
            continue
        ranked = sorted(
            of_family, key=lambda c: c.key
        )  # stable: equal candidates keep the config's order
        best = ranked[0].tier
        worst = max(best, 1) if best <= _DOWN else _FORCED_DOWN
        used = [c for c in ranked if c.tier <= worst]
        if not ranked[0].stands_by:
            used = [c for c in used if not c.stands_by]
        ranked.sort(key=lambda c: c not in used)
        order.append((family, tuple(c.uplink for c in ranked)))
        usable.append((family, tuple(c.uplink for c in used)))
    return Decision(tuple(order), tuple(usable))

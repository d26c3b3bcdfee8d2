"""Which uplinks to use, from how they fare and what the operator wants.

Rules: pure, and without memory but in one case: the same candidates give the same decision, so
that all comes back after a failure just as it was. Where nothing at all is usable, the last order
stays (fail static): a judgement that everything is dead is more likely wrong than useful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision, Forced, PathState

# The best class first. The operator's word comes before what is observed.
_OBSERVED: dict[PathState, int] = {
    "up": 0,
    "degraded": 0,
    "unproven": 1,
    "recovering": 2,
    "down": 4,
}
_FORCED: dict[Forced, int] = {"up": 0, "drain": 3, "down": 6}
_DRAINED, _DOWN, _DRAINED_DOWN = 3, 4, 5


@dataclass(frozen=True, order=True, slots=True)
class Candidate:
    """An uplink in one family, as a choice. Candidates come in the order of the config."""

    uplink: str
    family: Family
    rank: int = 0
    weight: int = 1
    carrier: bool = True
    state: PathState = "unproven"
    forced: Forced = "auto"

    @property
    def place(self) -> int:
        """Its class: 0 is best; from _DRAINED on it isn't to be used. What is drained still works,
        and so comes before what is dead."""
        place = _FORCED.get(self.forced, _OBSERVED[self.state])
        return _DRAINED_DOWN if place == _DRAINED and self.state == "down" else place

    @property
    def key(self) -> tuple[int, bool, int, bool, int]:
        worse = self.state == "degraded" and self.forced != "up"
        return self.place, not self.carrier, self.rank, worse, -self.weight


def decide(candidates: Sequence[Candidate], last: Decision | None) -> Decision:
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
        best = ranked[0].place
        if best >= _DOWN:
            ranked = _as_before(ranked, last.ranking(family) if last else ())
            kept = [c for c in ranked if c.place == _DOWN] or ranked
        else:
            kept = [c for c in ranked if c.place <= max(best, 1)]
        order.append((family, tuple(c.uplink for c in ranked)))
        usable.append((family, tuple(c.uplink for c in kept)))
    return Decision(tuple(order), tuple(usable))


def _as_before(ranked: list[Candidate], names: Sequence[str]) -> list[Candidate]:
    """In the last order, new ones behind; but what the operator took out stays last."""
    place = {name: at for at, name in enumerate(names)}
    return sorted(ranked, key=lambda c: (c.place, place.get(c.uplink, len(place))))

"""Unproven paths that never worked: their targets answer over another uplink, but never here.

Rules: an unproven path is used and published, since its targets may be wrong. If they answer over
another uplink, they aren't. Clients that are served over the path prove it, as answers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ifdefault.health.path import Path
from ifdefault.model.config import Family
from ifdefault.model.health import Health

CAUSE = "never answered, but its targets answer over another uplink"
_LOST = 3  # so many probes of each target
_ELSEWHERE = 2  # so many targets answer over other uplinks, if there are as many


class NeverWorked:
    def __init__(self) -> None:
        self.paths: frozenset[tuple[str, Family]] = frozenset()

    def update(self, paths: Sequence[Path]) -> bool:
        """True if they changed."""
        before, self.paths = self.paths, frozenset()
        if any(path.state == "unproven" for path in paths):
            self.paths = _find([path.health() for path in paths])
        return self.paths != before

    def shown(self, health: Health) -> Health:
        """The health of a path, with the cause why it isn't used."""
        is_known = (health.uplink, health.family) in self.paths
        return replace(health, cause=CAUSE) if is_known else health


def _find(healths: Sequence[Health]) -> frozenset[tuple[str, Family]]:
    answering = {
        (health.family, target.probe)
        for health in healths
        if health.state in ("up", "degraded")
        for target in health.targets
        if target.answered and not target.note
    }
    return frozenset(
        (health.uplink, health.family)
        for health in healths
        if health.state == "unproven"
        and all(not target.answered and target.lost >= _LOST for target in health.targets)
        and sum((health.family, target.probe) in answering for target in health.targets)
        >= min(_ELSEWHERE, max(1, len(health.targets)))
    )

"""How often a path is probed.

Rules: a suspicion is settled by a burst, and a path that is down or recovers is probed more often
than one that works. An idle one, a standby that nothing uses, is probed sparsely also while it is
down, since each probe costs.
"""

from __future__ import annotations

from typing import Literal

from ifdefault.model.health import PathState

Pace = Literal["quiet", "sparse", "burst", "waiting", "waiting long"]
LONG_DOWN_S = 600.0
SPARSE_S = 30.0


def pace_of(
    state: PathState, state_s: float, *, burst: bool, idle: bool, contradicted: bool
) -> Pace:
    """The pace of a path that has been in its state for `state_s`. `burst`: whether there is a
    reason for one; `contradicted`: connections progress, though probes are silent."""
    if burst:
        return "burst"
    if state == "recovering":
        return "waiting"
    if idle:
        return "sparse"
    if state == "down":
        return "waiting" if state_s < LONG_DOWN_S else "waiting long"
    return "waiting" if contradicted else "quiet"

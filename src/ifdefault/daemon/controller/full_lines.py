"""How full the lines are: new connections follow it, and the operator hears of full ones.

Rules: a share that changes is no failover: a decision is made again, and nothing is logged or run
for it. Only a line that has become full, or has room again, is an event.
"""

from __future__ import annotations

from ifdefault.daemon.controller.events import TrafficCounted
from ifdefault.daemon.controller.state import State
from ifdefault.model.report_text import filling


def follow_lines(state: State, now: float, counted: TrafficCounted) -> None:
    """Take in the uplinks' counters, and have a decision made if a share changed. An event that
    only tells the time has none."""
    if not counted.counters:
        return
    lines = state.free_capacity
    state.decision_due |= lines.count(now, state.config.uplinks, counted.counters)
    for load in lines.reports():
        what = "its line is full" if load.full else "its line has room again"
        state.log("uplink", f"{load.uplink}: {what}: {filling(load)}", load.uplink)

"""Which uplinks to use: makes candidates of uplinks and path states, and selects among them.

Rules: the decision is a function of the current state, not of past events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ifdefault.daemon.controller.effects import RunHook
from ifdefault.daemon.controller.state import Key, State
from ifdefault.health.selection import Candidate, decide
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision, PathState
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.plan.servers import Server

_FRESH: tuple[PathState, float] = ("unproven", 0.0)


def make_decision(
    state: State,
    paths: Mapping[Key, tuple[PathState, float]],
    down: tuple[Server, ...],
    uplinks: tuple[Uplink, ...],
    facts: Facts,
) -> Decision:
    """`paths`: the state of each, and since when. After a start, an unproven path counts as up
    until the first answers are in (`State.settled`), since they come in any order."""
    carriers = {link.name for link in facts.links if link.carrier}
    candidates = []
    for uplink in uplinks:
        for family in FAMILIES:
            if uplink.pending or uplink.gateway(family) is None:
                continue
            observed, since_s = paths.get((uplink.name, family), _FRESH)
            if observed == "unproven" and not state.settled:
                observed = "up"
            candidates.append(
                Candidate(
                    uplink=uplink.name,
                    family=family,
                    rank=uplink.rank,
                    weight=uplink.weight,
                    carrier=uplink.interface in carriers,
                    state=observed,
                    forced=state.forced.get(uplink.name, "auto"),
                    down_since_s=since_s if observed == "down" else 0.0,
                )
            )
    return replace(decide(candidates), servers_down=down)


class Primaries:
    """Reports that the primary uplink of a family changed, once the kernel follows the decision."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._reported: dict[Family, str] = {}

    def report(self) -> None:
        state = self._state
        if state.decision is None or state.unapplied or state.held:
            return
        for family, order in state.decision.order:
            name = order[0] if order else ""
            was = self._reported.get(family, "")
            if name not in ("", was):
                self._reported[family] = name
                state.log("primary", f"primary IPv{family}: {was or 'none'} -> {name}", name)
                if was:  # otherwise the daemon has just started
                    state.out.append(RunHook("primary", name, family, was, name))

"""Which uplinks to use: makes candidates of uplinks and path states, and selects among them.

Rules: the decision is a function of the current state, not of past events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ifdefault.daemon.controller.effects import RunHook
from ifdefault.daemon.controller.state import Key, State
from ifdefault.health.selection import Candidate, decide
from ifdefault.health.usage import is_within
from ifdefault.model.config import FAMILIES, Config, Family, UplinkConfig
from ifdefault.model.flow import Flow
from ifdefault.model.health import BUDGET_USED_UP, Decision, PathState, StandbyReason
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.plan.lookup import Fib
from ifdefault.plan.self_check import elsewhere
from ifdefault.plan.servers import Server

_FRESH: tuple[PathState, float] = ("unproven", 0.0)


def make_decision(
    state: State,
    config: Config,
    paths: Mapping[Key, tuple[PathState, float]],
    down: tuple[Server, ...],
    uplinks: tuple[Uplink, ...],
    facts: Facts,
) -> Decision:
    """`paths`: the state of each, and since when. After a start, an unproven path counts as up
    until the first answers are in (`State.settled`), since they come in any order."""
    carriers = {link.name for link in facts.links if link.carrier}
    works = _Routing(facts) if state.held else None
    forced = state.forced_states(config)
    standby = dict(standby_uplinks(state, config))
    candidates = []
    for uplink in uplinks:
        for family in FAMILIES:
            if uplink.pending or uplink.gateway(family) is None:
                continue
            observed, since_s = paths.get((uplink.name, family), _FRESH)
            if observed == "unproven" and not state.settled:
                observed = "up"
            if works is not None and not works.answers(uplink, family):
                observed = "down"
            candidates.append(
                Candidate(
                    uplink=uplink.name,
                    family=family,
                    rank=uplink.rank,
                    weight=uplink.weight,
                    carrier=uplink.interface in carriers,
                    state=observed,
                    forced=forced.get(uplink.name, "auto"),
                    down_since_s=since_s if observed == "down" else 0.0,
                    standby=uplink.name in standby,
                )
            )
    decision = replace(
        decide(candidates),
        servers_down=down,
        standby=tuple(standby.items()),
        shares=state.free_capacity.shares(config.uplinks),
    )
    return works.primary_first(decision, uplinks) if works is not None else decision


def standby_uplinks(state: State, config: Config) -> Iterator[tuple[str, StandbyReason]]:
    """The uplinks that are usable only where no other is, unless the operator forced them up."""
    for uplink in config.uplinks:
        reason = _why_standby(state, uplink)
        if reason and state.forced.get(uplink.name) != "up":
            yield uplink.name, reason


def _why_standby(state: State, uplink: UplinkConfig) -> StandbyReason | None:
    if uplink.on_budget == "standby" and state.is_spent(uplink):
        return BUDGET_USED_UP
    if uplink.hours and state.minute is not None and not is_within(uplink.hours, state.minute):
        return "outside its hours"
    return "metered" if uplink.metered else None


class _Routing:
    """What becomes of packets while nothing of ours is in the kernel (`State.held`)."""

    def __init__(self, facts: Facts) -> None:
        self._fib = Fib.of(facts)
        self._far = {family: elsewhere(family, facts)[0] for family in FAMILIES}

    def answers(self, uplink: Uplink, family: Family) -> bool:
        """Whether replies from its address leave by it."""
        flow = Flow(family, self._far[family], uplink.source(family) or "")
        hop = self._fib.lookup(flow).hop
        way = (uplink.interface, uplink.gateway(family))
        return hop is not None and (hop.dev, hop.gateway) == way

    def primary_first(self, decision: Decision, uplinks: tuple[Uplink, ...]) -> Decision:
        """The same, with the uplink first that new outgoing connections use."""
        order = []
        for family, names in decision.order:
            hop = self._fib.lookup(Flow(family, self._far[family])).hop
            used = {u.name for u in uplinks if hop and u.interface == hop.dev}
            first = tuple(name for name in names if name in used)
            order.append((family, first + tuple(name for name in names if name not in used)))
        return replace(decision, order=tuple(order))


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
                text = f"primary IPv{family}: {was or 'none'} -> {name}"
                state.log("primary", text, name, "warning" if was else "info")
                if was:  # otherwise the daemon has just started
                    state.out.append(RunHook("primary", name, family, was, name))

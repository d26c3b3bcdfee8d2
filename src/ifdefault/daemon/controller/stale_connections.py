"""Ends outgoing connections that hang on a dead uplink, once another uplink can take over.

Rules: only connections that certainly belong to the dead uplink are ended: not by an address that
another uplink shares, nor by a mark while the uplink still works in the other family. None is ended
while no other uplink is usable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ifdefault.daemon.controller.effects import EndConnections
from ifdefault.daemon.controller.events import ConnectionsEnded
from ifdefault.daemon.controller.state import Key, State
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision, PathState, Transition
from ifdefault.model.kernel import TABLE_MAIN, Facts, Uplink
from ifdefault.plan import tables


class StaleConnections:
    def __init__(self, state: State) -> None:
        self._state = state
        self._usable: dict[str, Uplink] = {}  # uplinks as they were when last usable

    def update(self, uplinks: tuple[Uplink, ...]) -> None:
        """Remember the uplinks that are ready, since they lose their addresses when they aren't."""
        self._usable |= {u.name: u for u in uplinks if not u.pending}

    def note(self, change: Transition) -> None:
        if change.state == "down":
            self._state.went_down[change.uplink, change.family] = None
        else:
            self._state.went_down.pop((change.uplink, change.family), None)

    def end(self, states: Mapping[Key, PathState]) -> None:
        """End the connections of paths that are still down, observed or forced."""
        state = self._state
        decision, prepared = state.decision, state.prepared
        if not state.stands or decision is None or prepared is None:  # new ones would hang as well
            return
        forced = state.forced_states(state.config)
        for name, family in sorted(state.went_down):
            if "down" not in (forced.get(name), states.get((name, family))):
                del state.went_down[name, family]  # it was forced down, and isn't any more
                continue
            usable = decision.usable_in(family)
            if not usable or name in usable:
                continue  # fail static: no other uplink is usable
            del state.went_down[name, family]
            uplink = self._usable.get(name)
            if uplink and state.config.health.on_down == "end":
                facts = prepared.observation.facts
                effect = connections_to_end(facts, state.uplinks, decision, uplink, family)
                state.out.append(effect)

    def report(self, ended: ConnectionsEnded) -> None:
        head = f"{ended.uplink} IPv{ended.family}"
        if ended.error:
            text = f"{head}: can't end connections: {ended.error}"
            self._state.log("ended", text, ended.uplink, "warning")
        elif counts := ", ".join(_counts(ended)):
            back = f", which return to {' and '.join(ended.better)}" if ended.better else ""
            text = f"{head}: ended {counts} in {ended.took_s * 1000:.0f} ms{back}"
            self._state.log("ended", text, ended.uplink)


def _counts(ended: ConnectionsEnded) -> Iterator[str]:
    for count, what in (
        (ended.sockets, "TCP connection"),
        (ended.udp_sockets, "connected UDP socket"),
        (ended.flows, "tracked flow"),
    ):
        if count:
            yield f"{count} {what}{'s' * (count > 1)}"


def connections_to_end(
    facts: Facts, uplinks: tuple[Uplink, ...], decision: Decision, uplink: Uplink, family: Family
) -> EndConnections:
    """What identifies the connections of one dead uplink, and which to spare."""
    rank = {name: index for index, name in enumerate(decision.ranking(family))}
    remaining = sorted(
        (u for u in uplinks if u.name != uplink.name),
        key=lambda u: rank.get(u.name, len(rank)),
    )
    others = [a.address for u in remaining for a in u.addresses if a.family == family]
    own = (a.address for a in uplink.addresses if a.family == family)
    dead = all(uplink.name not in decision.works_in(f) for f in FAMILIES)
    return EndConnections(
        uplink.name,
        family,
        addresses=tuple(a for a in own if a not in others),
        marks=(uplink.outgoing_mark,) if dead else (),
        mask=uplink.mark_mask,
        spared=tuple(sorted(not_by_uplinks(facts, uplinks, family))),
        others=tuple(others),
    )


def not_by_uplinks(facts: Facts, uplinks: tuple[Uplink, ...], family: Family) -> set[str]:
    """Prefixes that are not reached through an uplink: nearby networks, and this host."""
    return {*_nearby(facts, uplinks, family), *_local(facts, family)}


def _nearby(facts: Facts, uplinks: tuple[Uplink, ...], family: Family) -> list[str]:
    """Networks behind other interfaces: LANs, bridges, tunnels."""
    interfaces = {u.interface for u in uplinks}
    return [
        route.dst
        for route in tables.of(facts, family, TABLE_MAIN)
        if route.dst != "default"
        and route.hops
        and not any(hop.dev in interfaces for hop in route.hops)
    ]


def _local(facts: Facts, family: Family) -> list[str]:
    return [a.address for a in facts.addresses if a.family == family]

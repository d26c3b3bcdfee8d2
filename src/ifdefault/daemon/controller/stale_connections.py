"""What hangs on a dead uplink, and is ended once others can take over.

Rules: only what is the dead uplink's own. An address that another uplink shares tells nothing, and
a mark tells nothing while the uplink still works in the other family. Nothing is ended that has
nowhere to go.
"""

from __future__ import annotations

from collections.abc import Mapping

from ifdefault.daemon.controller.effects import EndConnections
from ifdefault.daemon.controller.events import ConnectionsEnded
from ifdefault.daemon.controller.state import Key, State
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision, PathState, Transition
from ifdefault.model.kernel import TABLE_MAIN, Facts, Uplink


class StaleConnections:
    def __init__(self, state: State) -> None:
        self._state = state
        self._usable: dict[str, Uplink] = {}  # uplinks as they were when they could be used last

    def follow(self, uplinks: tuple[Uplink, ...]) -> None:
        """Take in what the uplinks are now."""
        self._usable |= {u.name: u for u in uplinks if not u.pending}

    def note(self, change: Transition) -> None:
        if change.state == "down":
            self._state.fallen[change.uplink, change.family] = None
        else:
            self._state.fallen.pop((change.uplink, change.family), None)

    def end(self, states: Mapping[Key, PathState]) -> None:
        """End what hangs on those that are still down, by observation or by order."""
        state = self._state
        decision, prepared = state.decision, state.prepared
        late = state.held or state.owed or state.fought  # the kernel doesn't follow yet
        if late or decision is None or prepared is None:
            return
        for name, family in sorted(state.fallen):
            if "down" not in (state.forced.get(name), states.get((name, family))):
                del state.fallen[name, family]  # it was forced down, and isn't any more
                continue
            usable = decision.usable_in(family)
            if not usable or name in usable:
                continue  # fail static: there is nowhere to go
            del state.fallen[name, family]
            uplink = self._usable.get(name)
            if uplink and state.config.health.on_down == "end":
                facts = prepared.observation.facts
                state.out.append(ends(facts, state.uplinks, decision, uplink, family))

    def tell(self, ended: ConnectionsEnded) -> None:
        head = f"{ended.uplink} IPv{ended.family}"
        if ended.error:
            text = f"{head}: nothing freed: {ended.error}"
            self._state.log("ended", text, ended.uplink, "warning")
        elif ended.sockets or ended.flows:
            text = (
                f"{head}: freed {ended.sockets} TCP connections and {ended.flows} tracked flows"
                f" in {ended.took_s * 1000:.0f} ms"
            )
            self._state.log("ended", text, ended.uplink)


def ends(
    facts: Facts, uplinks: tuple[Uplink, ...], decision: Decision, uplink: Uplink, family: Family
) -> EndConnections:
    """What is one dead uplink's own, and what is to be spared."""
    rank = {name: place for place, name in enumerate(decision.ranking(family))}
    living = sorted(
        (u for u in uplinks if u.name != uplink.name),
        key=lambda u: rank.get(u.name, len(rank)),
    )
    others = [a.address for u in living for a in u.addresses if a.family == family]
    own = (a.address for a in uplink.addresses if a.family == family)
    dead = all(uplink.name not in decision.usable_in(f) for f in FAMILIES)
    return EndConnections(
        uplink.name,
        family,
        addresses=tuple(a for a in own if a not in others),
        marks=(uplink.outgoing_mark,) if dead else (),
        mask=uplink.mark_mask,
        spared=tuple(sorted({*_nearby(facts, uplinks, family), *_local(facts, family)})),
        others=tuple(others),
    )


def _nearby(facts: Facts, uplinks: tuple[Uplink, ...], family: Family) -> list[str]:
    """Networks behind other interfaces: LANs, bridges, tunnels."""
    interfaces = {u.interface for u in uplinks}
    return [
        route.dst
        for route in facts.routes
        if route.table == TABLE_MAIN
        and route.family == family
        and route.dst != "default"
        and route.hops
        and not any(hop.dev in interfaces for hop in route.hops)
    ]


def _local(facts: Facts, family: Family) -> list[str]:
    return [a.address for a in facts.addresses if a.family == family]

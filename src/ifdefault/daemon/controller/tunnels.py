"""When tunnels of WireGuard have to be reached anew: after each decision that may move them.

Rules: only once the rules stand. Which peers that concerns is seen when it is done
(`daemon.move_tunnels`); setting one anew that is where it should be changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ifdefault.daemon.controller.effects import MoveTunnels
from ifdefault.daemon.controller.state import Key, State
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision, Forced, PathState

_KINDS = ("wireguard", "tun")  # wireguard-go's is a tun


class Tunnels:
    def __init__(self, state: State) -> None:
        self._state = state
        self._usable: tuple[tuple[str, ...], ...] = ()  # by family, when they were last moved

    def move(self, paths: Mapping[Key, PathState]) -> None:
        state = self._state
        decision, prepared = state.decision, state.prepared
        if not state.stands or decision is None or prepared is None:
            return
        usable = tuple(decision.usable_in(family) for family in FAMILIES)
        if usable == self._usable:
            return
        self._usable = usable
        if any(link.kind in _KINDS for link in prepared.observation.facts.links):
            first, forced = [*usable[0], *usable[1]], state.forced_states(state.config)
            uplinks = sorted(
                state.uplinks, key=lambda u: first.index(u.name) if u.name in first else len(first)
            )
            state.out.append(
                MoveTunnels(
                    tuple((uplink.interface, uplink.name) for uplink in uplinks),
                    tuple(f for f in FAMILIES if _is_alone(decision, f, paths, forced)),
                )
            )


def _is_alone(
    decision: Decision,
    family: Family,
    paths: Mapping[Key, PathState],
    forced: Mapping[str, Forced],
) -> bool:
    """Whether all uplinks but one are down."""
    usable = decision.usable_in(family)
    alive = [
        name
        for name in decision.ranking(family)
        if name in usable or "down" not in (forced.get(name), paths.get((name, family)))
    ]
    return len(alive) == 1

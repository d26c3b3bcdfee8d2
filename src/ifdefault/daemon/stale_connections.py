"""What hangs on a dead uplink: which addresses and marks, and what is to be spared.

Rules: only its own. An address that another uplink shares tells nothing, and a mark tells nothing
while the uplink still works in the other family.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.host.transaction import Prepared
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.health import Decision
from ifdefault.model.kernel import TABLE_MAIN, Uplink


@dataclass(frozen=True, slots=True)
class Ends:
    """The arguments of `kernel.free.free`."""

    addresses: tuple[str, ...]
    marks: tuple[int, ...]
    mask: int
    spared: tuple[str, ...]  # prefixes that are reached by no uplink
    others: tuple[str, ...]  # addresses of other uplinks, of the first in rank first


def ends(prepared: Prepared, decision: Decision, uplink: Uplink, family: Family) -> Ends:
    rank = {name: place for place, name in enumerate(decision.ranking(family))}
    living = sorted(
        (u for u in prepared.uplinks if u.name != uplink.name),
        key=lambda u: rank.get(u.name, len(rank)),
    )
    others = [a.address for u in living for a in u.addresses if a.family == family]
    own = (a.address for a in uplink.addresses if a.family == family)
    dead = all(uplink.name not in decision.usable_in(f) for f in FAMILIES)
    return Ends(
        addresses=tuple(a for a in own if a not in others),
        marks=(uplink.chosen_mark,) if dead else (),
        mask=uplink.mark_mask,
        spared=tuple(sorted({*_nearby(prepared, family), *_local(prepared, family)})),
        others=tuple(others),
    )


def _nearby(prepared: Prepared, family: Family) -> list[str]:
    """Networks behind other interfaces: LANs, bridges, tunnels."""
    interfaces = {u.interface for u in prepared.uplinks}
    return [
        route.dst
        for route in prepared.facts.routes
        if route.table == TABLE_MAIN
        and route.family == family
        and route.dst != "default"
        and route.hops
        and not any(hop.dev in interfaces for hop in route.hops)
    ]


def _local(prepared: Prepared, family: Family) -> list[str]:
    return [a.address for a in prepared.facts.addresses if a.family == family]

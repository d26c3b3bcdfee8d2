"""How the host stands: every interface's default, what it carries, and whether it holds.

Rules: reads and compares, never mends. What differs is what `apply` would do.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.errors import KernelError
from ifdefault.host.apply import Prepared
from ifdefault.kernel import ask, nft
from ifdefault.kernel.ask import Traffic
from ifdefault.model import FAMILIES, PROTOCOL, Family, Route, Uplink
from ifdefault.plan import ruleset
from ifdefault.plan.describe import describe


@dataclass(frozen=True, slots=True)
class Default:
    """One line of the talk's netstat: an interface's default, or the normal one.

    `holds` tells whether the kernel has it as it should be.
    """

    destination: str  # "default:wan0", or "default" for the normal one
    uplink: str
    gateway: str
    source: str
    table: int
    mark: str
    family: Family
    holds: bool


@dataclass(frozen=True, slots=True)
class UplinkStatus:
    name: str
    interface: str
    pending: str
    carrier: bool
    addresses: tuple[str, ...]
    router_macs: tuple[str, ...]
    mechanism: str
    why: str
    traffic: Traffic
    misrouted: int  # packets that would have left here from another uplink's address


@dataclass(frozen=True, slots=True)
class Status:
    applied: bool
    defaults: tuple[Default, ...]
    uplinks: tuple[UplinkStatus, ...]
    strangers: dict[str, int]  # sources that no uplink owns, with the packets they sent
    unknown_macs: dict[str, int]
    redirected_udp: tuple[int, ...]  # ports of sockets bound to no address, which cost conntrack
    differs: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.differs and not any(u.pending for u in self.uplinks)


def read_status(prepared: Prepared) -> Status:
    facts, desired = prepared.facts, prepared.desired
    has_table = facts.nft is not None
    counters = nft.read_counters() if has_table else {}
    carried = ask.traffic(frozenset(u.interface for u in prepared.uplinks))
    carriers = {link.name: link.carrier for link in facts.links}
    return Status(
        applied=has_table or any(rule.protocol == PROTOCOL for rule in facts.rules),
        defaults=tuple(
            _default(route, prepared.uplinks, route in facts.routes)
            for family in FAMILIES
            for route in sorted(desired.routes, key=lambda r: (r.table in _normal(prepared), r))
            if route.family == family and route.dst == "default"
        ),
        uplinks=tuple(
            UplinkStatus(
                name=u.name,
                interface=u.interface,
                pending=u.pending,
                carrier=carriers.get(u.interface, False),
                addresses=tuple(a.address for a in u.addresses),
                router_macs=u.router_macs,
                mechanism=u.mechanism,
                why=u.why,
                traffic=carried.get(u.interface, Traffic()),
                misrouted=counters.get(ruleset.meter(u), (0, 0))[0],
            )
            for u in prepared.uplinks
        ),
        strangers=_counted(ruleset.STRANGERS[4]) | _counted(ruleset.STRANGERS[6])
        if has_table
        else {},
        unknown_macs=_counted(ruleset.UNKNOWN_MACS) if has_table else {},
        redirected_udp=tuple(sorted({port for _, port in desired.udp_ports})),
        differs=tuple(describe(operation) for operation in prepared.operations),
    )


def _normal(prepared: Prepared) -> set[int]:
    """The table of the normal default: the one that is no uplink's."""
    return {r.table for r in prepared.desired.routes} - {u.table for u in prepared.uplinks}


def _default(route: Route, uplinks: tuple[Uplink, ...], holds: bool) -> Default:
    owner = next((u for u in uplinks if u.table == route.table), None)
    carrier = owner or next(
        u
        for u in uplinks
        if u.interface == route.hops[0].dev and u.source(route.family) == route.src
    )
    return Default(
        destination=f"default:{owner.interface}" if owner else "default",
        uplink=carrier.name,
        gateway=route.hops[0].gateway or "on link",
        source=route.src,
        table=route.table,
        mark=f"{owner.arrival_mark:#x}" if owner else "",
        family=route.family,
        holds=holds,
    )


def _counted(name: str) -> dict[str, int]:
    try:
        return nft.read_counted_set(name)
    except KernelError:
        return {}  # the ruleset has no such set: nothing needs it

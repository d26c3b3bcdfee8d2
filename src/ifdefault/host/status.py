"""How the host stands: every interface's default, what it carries, and whether it holds.

Rules: reads and compares, never mends. What differs is what `apply` would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ifdefault.host.status_forward import Behind, read_behind
from ifdefault.kernel import nft
from ifdefault.kernel.link_stats import LinkStats, read_link_stats
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import KernelError
from ifdefault.model.kernel import NFT_TABLE, PROTOCOL
from ifdefault.plan import ruleset
from ifdefault.plan.describe import describe
from ifdefault.plan.prepare import Prepared

_NOTHING = Behind()


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
    traffic: LinkStats
    # packets that would have left here from another uplink's address; None where none are judged
    misrouted: int | None


@dataclass(frozen=True, slots=True)
class Status:
    applied: bool
    defaults: tuple[Default, ...]
    uplinks: tuple[UplinkStatus, ...]
    strangers: dict[str, int]  # sources that no uplink owns, with the packets they sent
    unknown_macs: dict[str, int]
    redirected_udp: tuple[int, ...]  # ports of sockets bound to no address, which cost conntrack
    differs: tuple[str, ...]
    behind: Behind = _NOTHING

    @property
    def holds(self) -> bool:
        return not self.differs and not any(u.pending for u in self.uplinks)


def read_status(prepared: Prepared) -> Status:
    facts, desired = prepared.facts, prepared.desired
    has_table = NFT_TABLE in dict(facts.tables)
    counters = nft.read_counters(NFT_TABLE) if has_table else {}
    carried = read_link_stats(u.interface for u in prepared.uplinks)
    carriers = {link.name: link.carrier for link in facts.links}
    return Status(
        applied=bool(facts.tables) or any(rule.protocol == PROTOCOL for rule in facts.rules),
        defaults=tuple(default for family in FAMILIES for default in _defaults(prepared, family)),
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
                traffic=carried.get(u.interface, LinkStats()),
                misrouted=counters.get(ruleset.misrouted_counter(u), (0, 0))[0]
                if counters
                else None,
            )
            for u in prepared.uplinks
        ),
        strangers=_counted(ruleset.UNKNOWN_SOURCES[4]) | _counted(ruleset.UNKNOWN_SOURCES[6])
        if has_table
        else {},
        unknown_macs=_counted(ruleset.UNKNOWN_MACS) if has_table else {},
        redirected_udp=tuple(sorted({port for _, port in desired.udp_ports})),
        differs=tuple(describe(operation) for operation in prepared.operations),
        behind=read_behind(prepared),
    )


def _defaults(prepared: Prepared, family: Family) -> Iterator[Default]:
    """Each uplink's own default, then the normal one, which is that of the best uplink."""
    facts, desired = prepared.facts, prepared.desired
    routes = {r.table: r for r in desired.routes if r.family == family and r.dst == "default"}
    owners = {u.table: u for u in prepared.uplinks}
    for table, route in sorted(routes.items()):
        owner = owners[table]
        yield Default(
            destination=f"default:{owner.interface}",
            uplink=owner.name,
            gateway=route.hops[0].gateway or "on link",
            source=route.src,
            table=table,
            mark=f"{owner.arrival_mark:#x}",
            family=family,
            holds=route in facts.routes,
        )
    normal = [r for r in desired.rules if r.family == family and r.table in routes][-1:]
    for rule in normal:
        route, holds = routes[rule.table], rule in facts.rules
        yield Default(
            destination="default",
            uplink=owners[rule.table].name,
            gateway=route.hops[0].gateway or "on link",
            source=route.src,
            table=rule.table,
            mark="",
            family=family,
            holds=holds and route in facts.routes,
        )


def _counted(name: str) -> dict[str, int]:
    try:
        return nft.read_counted_set(name)
    except KernelError:
        return {}  # the ruleset has no such set: nothing needs it

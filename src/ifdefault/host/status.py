"""The state of the host: each interface's default route, its traffic, and whether it is in place.

Rules: reads and compares, never repairs. The differences are the operations of `apply`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ifdefault.host.observe import ask
from ifdefault.host.status_forward import ForwardStatus, read_forward_status
from ifdefault.host.status_mptcp import MptcpStatus, read_mptcp_status
from ifdefault.kernel import nft
from ifdefault.kernel.link_stats import LinkStats, read_link_stats
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import KernelError, Problem
from ifdefault.model.kernel import NFT_TABLE, PROTOCOL, ForgetFlows, LoadNft, PutHook
from ifdefault.plan import ruleset, self_check
from ifdefault.plan.describe import describe
from ifdefault.plan.prepare import Prepared

_NO_FORWARD = ForwardStatus()
_NEED_RIGHTS = (LoadNft, PutHook, ForgetFlows)
UNREAD = "the packet filter and the eBPF programs"


@dataclass(frozen=True, slots=True)
class Default:
    """A line as in the talk's netstat: the default route of an interface, or the primary's.

    `holds` is whether it is in the kernel as planned.
    """

    destination: str  # "default:wan0", or "default" for the primary's
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
    # packets from another uplink's address; None if they aren't checked
    misrouted: int | None
    table: int = 0
    mark: str = ""  # the arrival mark


@dataclass(frozen=True, slots=True)
class Status:
    applied: bool
    defaults: tuple[Default, ...]
    uplinks: tuple[UplinkStatus, ...]
    strangers: dict[str, int]  # source addresses that belong to no uplink, and their packets
    unknown_macs: dict[str, int]
    redirected_udp: tuple[int, ...]  # ports of wildcard UDP servers, which need conntrack
    differs: tuple[str, ...]
    astray: tuple[Problem, ...] = ()  # packets that don't go where they are meant to go
    forward: ForwardStatus = _NO_FORWARD
    unread: str = ""  # what wasn't read, since only root can
    mptcp: MptcpStatus | None = None

    @property
    def holds(self) -> bool:
        astray = any(not problem.warning for problem in self.astray)
        return not self.differs and not astray and not any(u.pending for u in self.uplinks)


def read_status(
    prepared: Prepared, down: Collection[tuple[str, Family]] = (), *, rights: bool = True
) -> Status:
    """`rights`: as in `read_facts`. Without, operations whose need can't be known are left out.
    `down`: uplinks that don't work in a family."""
    facts, desired = prepared.facts, prepared.desired
    has_table = NFT_TABLE in dict(facts.tables)
    counters = nft.read_counters(NFT_TABLE) if has_table else {}
    traffic = read_link_stats(u.interface for u in prepared.uplinks)
    carriers = {link.name: link.carrier for link in facts.links}
    return Status(
        applied=is_applied(prepared),
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
                traffic=traffic.get(u.interface, LinkStats()),
                misrouted=counters.get(ruleset.misrouted_counter(u), (0, 0))[0]
                if counters
                else None,
                table=u.table,
                mark=f"{u.arrival_mark:#x}",
            )
            for u in prepared.uplinks
        ),
        strangers=_counted(ruleset.UNKNOWN_SOURCES[4]) | _counted(ruleset.UNKNOWN_SOURCES[6])
        if has_table
        else {},
        unknown_macs=_counted(ruleset.UNKNOWN_MACS) if has_table else {},
        redirected_udp=tuple(sorted({port for _, port in desired.udp_ports})),
        differs=_differences(prepared, rights=rights),
        astray=find_astray(prepared),
        forward=read_forward_status(prepared),
        unread="" if rights else UNREAD,
        mptcp=read_mptcp_status(prepared, down, rights=rights),
    )


def is_applied(prepared: Prepared) -> bool:
    """Whether there is anything of ours in the kernel."""
    facts = prepared.facts
    return bool(facts.tables) or any(rule.protocol == PROTOCOL for rule in facts.rules)


def _differences(prepared: Prepared, *, rights: bool) -> tuple[str, ...]:
    return tuple(
        describe(operation)
        for operation in prepared.operations
        if rights or not isinstance(operation, _NEED_RIGHTS)
    )


def find_differences(prepared: Prepared, *, rights: bool = True) -> Iterator[Problem]:
    """What has to be done since it was applied: another program has removed something, or laid
    rules beside which less or more is needed, or the config has changed."""
    differs = _differences(prepared, rights=rights)
    if differs and is_applied(prepared):
        first, number = differs[0].partition("  #")[0], len(differs)
        what = f"{number} operations of apply are" if number > 1 else "an operation of apply is"
        remedy = "run ifdefault plan to see what would change, ifdefault apply to change it"
        yield Problem("kernel", f"{what} due: {first}", remedy, warning=True)


def find_astray(prepared: Prepared) -> tuple[Problem, ...]:
    """Ask the kernel where packets go, and find what isn't as meant."""
    config, facts, uplinks = prepared.config, prepared.facts, prepared.uplinks
    answers = ask(prepared.questions, facts)
    return self_check.find(config, facts, uplinks, answers, prepared.decision)


def _defaults(prepared: Prepared, family: Family) -> Iterator[Default]:
    """Each uplink's default route, then the primary's, which new outgoing connections use."""
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
    primary = [r for r in desired.rules if r.family == family and r.table in routes][-1:]
    for rule in primary:
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
        return {}  # the ruleset needs no such set

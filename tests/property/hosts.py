"""Hosts of every kind, and what their owners want of them.

    wan0 … wan3   uplinks: own link, on wan0's LAN, or point-to-point; IPv4, IPv6 or both
    lan0          a private LAN, and a network behind it
    vpn0          a VPN with rules like Tailscale's, halves like OpenVPN's, or rules like wg-quick's

Rules: documentation addresses; FAR is a client that only a default leads to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hypothesis import strategies as st

from ifdefault.model.config import (
    FAMILIES,
    Config,
    Family,
    ForwardConfig,
    ForwardServer,
    HostConfig,
    MptcpConfig,
    OutgoingConfig,
    OutgoingRule,
    Ports,
    ReturnPath,
    Transport,
    UplinkConfig,
)
from ifdefault.model.kernel import TABLE_MAIN, Address, Facts, Hop, Link, Neighbour, Route, Rule
from ifdefault.model.mptcp import Endpoint, MptcpState

FAR: dict[Family, str] = {4: "192.0.2.99", 6: "2001:db8:ffff::99"}
LAN: dict[Family, str] = {4: "192.168.1.10", 6: "fd00:1::10"}
BEHIND_LAN: dict[Family, str] = {4: "172.16.5.1", 6: "fd00:5::1"}
ROUTED: dict[Family, str] = {4: "198.51.{}.0/24", 6: "2001:db8:f{}00::/40"}  # by a shape's number
BEHIND_VPN: dict[Family, str] = {4: "100.100.0.2", 6: "fd7a::2"}
MASKS = (0x3F000000, 0x3F, 0xFC000000)
KERNEL, BOOT, STATIC = 2, 3, 4  # rtnetlink protocols

_ALL_MARK = 0xFFFFFFFF
_RULES = tuple(
    Rule(family, priority, table=table, protocol=KERNEL)
    for family in FAMILIES
    for priority, table in ((0, 255), (32766, 254), (32767, 253))
    if family == 4 or priority < 32767
)


@dataclass(frozen=True)
class Shape:
    """One uplink as it is built. `prefix` is the number of the prefix that its addresses are in."""

    number: int
    kind: str  # own | shared | point-to-point
    families: tuple[Family, ...]
    count: int  # addresses a family
    prefix: int
    learned: bool  # its default is in main, else the config names its gateways
    carrier: bool
    rank: int
    weight: int

    @property
    def dev(self) -> str:
        return "wan0" if self.kind == "shared" else f"wan{self.number}"

    def gateway(self, family: Family) -> str:
        host = 1 if self.prefix == self.number else 2 + self.number
        return _address(family, self.prefix, host)

    def addresses(self, family: Family) -> list[str]:
        return [_address(family, self.prefix, 10 + n) for n in range(self.count)]


def _address(family: Family, prefix: int, host: int) -> str:
    return f"203.0.113.{32 * prefix + host}" if family == 4 else f"2001:db8:{prefix}::{host:x}"


def _prefix(family: Family, number: int) -> str:
    return f"203.0.113.{32 * number}/27" if family == 4 else f"2001:db8:{number}::/64"


_FAMILIES: list[tuple[Family, ...]] = [(4,), (6,), (4, 6), (4, 6)]
_WAYS: list[ReturnPath] = ["auto", "auto", "source", "mark", "conntrack"]


@st.composite
def _shapes(draw: st.DrawFn) -> tuple[Shape, ...]:
    found: list[Shape] = []
    for number in range(draw(st.integers(1, 4))):
        kinds = ["own", "own", "point-to-point"] + ["shared"] * (number > 0)
        kind = draw(st.sampled_from(kinds)) if number else "own"
        families = draw(st.sampled_from(_FAMILIES))
        twin = kind == "shared" and families == found[0].families and draw(st.booleans())
        found.append(
            Shape(
                number=number,
                kind=kind,
                families=families,
                count=found[0].count if twin else draw(st.integers(1, 3)),
                prefix=0 if twin else number,
                learned=kind != "shared" and draw(st.booleans()),
                carrier=draw(st.sampled_from([True, True, False])),
                rank=draw(st.integers(0, 2)),
                weight=draw(st.integers(1, 3)),
            )
        )
    if any(shape.kind == "shared" for shape in found):
        found[0] = replace(found[0], learned=False)
    return tuple(found)


def _facts(shapes: Sequence[Shape]) -> Facts:
    links = [Link(1, "lo", loopback=True), Link(2, "lan0"), Link(3, "vpn0", point_to_point=True)]
    addresses = [Address(4, "lan0", "192.168.1.1", 24), Address(6, "lan0", "fd00:1::1", 64)]
    routes = list(_private_routes())
    neighbours = []
    for shape in shapes:
        alone = shape.kind != "shared"
        p2p = shape.kind == "point-to-point"
        if alone:
            link = Link(10 + shape.number, shape.dev, carrier=shape.carrier, point_to_point=p2p)
            links.append(link)
        for family in shape.families:
            gateway = shape.gateway(family)
            if alone or shape.prefix == shape.number:
                addresses += _addresses_of(shape, family)
                routes.append(_connected(shape, family))
            if shape.learned:
                hop = Hop(shape.dev, "" if p2p else gateway)
                metric = 100 * shape.number + (1024 if family == 6 else 0)
                alias = shape.addresses(family)[-1] if shape.count > 2 else ""
                default = Route(family, TABLE_MAIN, "default", metric, hops=(hop,), src=alias)
                routes.append(default)
            mac = f"02:00:00:00:00:{shape.number:02x}"
            neighbours.append(Neighbour(family, shape.dev, gateway, mac, router=True))
    return Facts(
        links=tuple(links),
        addresses=tuple(addresses),
        routes=tuple(routes),
        rules=_RULES,
        neighbours=tuple(neighbours),
        sysctls=(
            ("net/ipv4/tcp_fwmark_accept", "0"),
            ("net/ipv4/fwmark_reflect", "0"),
            ("net/ipv6/fwmark_reflect", "0"),
            ("net/ipv4/conf/all/rp_filter", "1"),
            ("net/ipv4/conf/all/accept_redirects", "1"),
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv6/conf/all/forwarding", "0"),
            *((f"net/ipv4/conf/wan{n}/src_valid_mark", "0") for n in range(4)),
            *((f"net/ipv4/conf/wan{n}/rp_filter", str(n % 3)) for n in range(4)),
            *((f"net/ipv6/conf/wan{n}/accept_ra", str(n % 3)) for n in range(4)),
        ),
    )


def _private_routes() -> tuple[Route, ...]:
    return (
        Route(4, TABLE_MAIN, "192.168.1.0/24", hops=(Hop("lan0"),), src="192.168.1.1", scope=253),
        Route(6, TABLE_MAIN, "fd00:1::/64", 256, hops=(Hop("lan0"),)),
        Route(4, TABLE_MAIN, "172.16.0.0/12", hops=(Hop("lan0", "192.168.1.9"),)),
        Route(6, TABLE_MAIN, "fd00:5::/48", 1024, hops=(Hop("lan0", "fd00:1::9"),)),
    )


def _addresses_of(shape: Shape, family: Family) -> list[Address]:
    length = 27 if family == 4 else 64
    return [
        Address(family, shape.dev, text, length, secondary=family == 4 and n > 0)
        for n, text in enumerate(shape.addresses(family))
    ]


def _connected(shape: Shape, family: Family) -> Route:
    dst = _prefix(family, shape.prefix)
    hops = (Hop(shape.dev),)
    if family == 6:
        return Route(6, TABLE_MAIN, dst, 256, hops=hops, protocol=KERNEL)
    src = shape.addresses(4)[0]
    return Route(4, TABLE_MAIN, dst, hops=hops, src=src, scope=253, protocol=KERNEL)


# --- others on the host -------------------------------------------------------------------


def _routes_to(dev: str, table: int, *prefixes: str) -> tuple[Route, ...]:
    return tuple(
        Route(6 if ":" in dst else 4, table, dst, 1024 * (":" in dst), hops=(Hop(dev),))
        for dst in prefixes
    )


def wg_quick(main_first: int) -> tuple[Rule, ...]:
    """wg-quick's rules, from a priority on."""
    return tuple(
        rule
        for family in FAMILIES
        for rule in (
            Rule(family, main_first, table=TABLE_MAIN, suppress_prefixlength=0, protocol=BOOT),
            Rule(family, main_first + 1, table=51820, mark=51820, mask=_ALL_MARK, invert=True,
                 protocol=BOOT),
        )
    )  # fmt: skip


_TUNNEL = tuple(Route(f, 51820, "default", 1024 * (f == 6), hops=(Hop("vpn0"),)) for f in FAMILIES)

FOREIGN: dict[str, tuple[tuple[Route, ...], tuple[Rule, ...]]] = {
    "tailscale": (
        _routes_to("vpn0", 52, "100.100.0.0/16", "fd7a::/48"),
        tuple(
            rule
            for family in FAMILIES
            for rule in (
                Rule(family, 5210, table=TABLE_MAIN, mark=0x80000, mask=0xFF0000, protocol=BOOT),
                Rule(family, 5250, "unreachable", mark=0x80000, mask=0xFF0000, protocol=BOOT),
                Rule(family, 5270, table=52, protocol=BOOT),
            )
        ),
    ),
    "openvpn": (
        _routes_to("vpn0", TABLE_MAIN, "0.0.0.0/1", "128.0.0.0/1")
        + _routes_to("vpn0", TABLE_MAIN, "::/3", "2000::/4", "3000::/4", "fc00::/7"),
        (),
    ),
    "wg-quick": (_TUNNEL, wg_quick(32764)),
    "wg-quick above": (_TUNNEL, wg_quick(4998)),
    "site": (
        _routes_to("vpn0", 77, "10.77.0.0/16"),
        (Rule(4, 1000, table=77, dst="10.77.0.0/16", protocol=STATIC),),
    ),
}


def with_foreign(facts: Facts, *names: str) -> Facts:
    for name in names:
        routes, rules = FOREIGN[name]
        both = sorted((*facts.rules, *rules), key=lambda r: (r.family, r.priority))
        facts = replace(facts, routes=facts.routes + routes, rules=tuple(both))
    return facts


_neighbours_on_host = st.sets(st.sampled_from(sorted(FOREIGN)), max_size=3).filter(
    lambda names: len([n for n in names if "wg" in n]) < 2
)


# --- what the owner wants -----------------------------------------------------------------


def _uplink(shape: Shape, sharing: bool) -> UplinkConfig:
    gateways = () if shape.learned else tuple(shape.gateway(f) for f in shape.families)
    return UplinkConfig(
        name=f"isp-{shape.number}",
        interface=shape.dev,
        gateways=() if shape.kind == "point-to-point" else gateways,
        router_macs=(f"02:00:00:00:01:{shape.number:02x}",) if sharing else (),
        rank=shape.rank,
        weight=shape.weight,
        routed=tuple(ROUTED[f].format(shape.number) for f in shape.families if shape.count > 1),
    )


_SELECTED = [f"{FAR[4]}/32", "192.0.2.0/24", f"{FAR[6]}/128", "0.0.0.0/0", "2001:db8::/32"]
_TRANSPORTS: list[Transport | None] = [None, "tcp", "udp"]


@st.composite
def _outgoing_rules(draw: st.DrawFn, names: Sequence[str]) -> tuple[OutgoingRule, ...]:
    """Such that one often selects all that another does, and more."""
    found = []
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 3]))):
        to = draw(st.lists(st.sampled_from(_SELECTED), max_size=2, unique=True))
        transport = draw(st.sampled_from(_TRANSPORTS))
        ports = draw(st.sampled_from([(), ((25, 25),), ((25, 25), (8000, 8099))]))
        users = draw(st.sampled_from([(), (1000,), (0, 1000)]))
        if to or transport or users:
            via = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
            ports = ports if transport else ()
            found.append(OutgoingRule(tuple(via), tuple(to), transport, ports, users))
    return tuple(found)


def _forwarding(facts: Facts) -> Facts:
    """The same host, forwarding by itself."""
    changed = {
        "net/ipv4/ip_forward": "1",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv4/conf/all/accept_redirects": "0",
    }
    return replace(facts, sysctls=tuple((dict(facts.sysctls) | changed).items()))


_MODES: list[Literal["failover", "balance"]] = ["failover", "balance"]
_TO_LAN = tuple(ForwardServer(address) for address in LAN.values())
_WEB, _MAIL = (ForwardConfig((Ports("tcp", port, port),), _TO_LAN) for port in (80, 25))


_LIMITS = (("add_addr_accepted", 0), ("subflows", 2))
_MPTCP = [
    None,
    MptcpState(limits=_LIMITS),
    MptcpState(endpoints=(Endpoint(1, "192.0.2.7", subflow=True),), limits=_LIMITS),
]


@dataclass(frozen=True)
class Scene:
    """A host and its config, then the host as it has become and what its owner wants now."""

    facts: Facts
    config: Config
    later: Facts
    edited: Config


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    shapes = draw(_shapes())
    sharing = sum(shape.dev == "wan0" for shape in shapes) > 1
    facts = with_foreign(_facts(shapes), *sorted(draw(_neighbours_on_host)))
    if draw(st.booleans()):
        facts = replace(facts, wildcard_udp=((4, 53), (6, 443)))
    uplinks = tuple(_uplink(shape, sharing) for shape in shapes)
    ways = st.sampled_from(_WAYS)
    host = HostConfig(mark_mask=draw(st.sampled_from(MASKS)), return_path=draw(ways))
    stay = draw(st.sets(st.integers(0, len(uplinks) - 1), min_size=1))
    # the first of a shared LAN stays: without it, its prefix would be the others'
    kept = [u for n, u in enumerate(uplinks) if n in stay or (sharing and u.interface == "wan0")]
    reranked = tuple(replace(u, rank=draw(st.integers(0, 2))) for u in kept)
    # another priority moves the whole block
    place = draw(st.sampled_from([5000, 5000, 3000]))
    rules = st.builds(
        lambda rules, masquerade, mode: OutgoingConfig(mode, masquerade=masquerade, rules=rules),
        _outgoing_rules([u.name for u in uplinks]),
        st.sampled_from([(), (), ("lan0",)]),
        st.sampled_from(_MODES),
    )
    if draw(st.booleans()):
        facts = _forwarding(facts)
    facts = replace(facts, mptcp=draw(st.sampled_from(_MPTCP)))
    mptcp = st.builds(MptcpConfig, st.booleans())
    forwards = st.sampled_from([(), (), (_WEB,), (_WEB, _MAIL)])
    edited = Config(
        reranked,
        replace(host, return_path=draw(ways), rule_priority=place),
        outgoing=draw(rules),
        forwards=draw(forwards),
        mptcp=draw(mptcp),
    )
    calm = not any(rule.table == 51820 for rule in facts.rules)
    later = with_foreign(facts, "wg-quick above") if calm and draw(st.booleans()) else facts
    config = Config(uplinks, host, outgoing=draw(rules), forwards=draw(forwards), mptcp=draw(mptcp))
    return Scene(facts, config, later, edited)

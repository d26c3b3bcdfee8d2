"""A random host, and a random config for it, from a seed.

    wan0 … wan3   uplinks, each a link of its own; defaults are learned, or configured
    lan0          a private LAN with servers of forwards

Rules: documentation addresses. Faults are not decided here.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from ifdefault.model.config import (
    FAMILIES,
    Config,
    Family,
    ForwardConfig,
    ForwardServer,
    HealthConfig,
    HostConfig,
    OutgoingConfig,
    OutgoingRule,
    Ports,
    Probe,
    UplinkConfig,
)
from ifdefault.model.dns import DnsConfig, Endpoint, NameConfig, ServerConfig, UpdateConfig
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import TABLE_MAIN, Address, Facts, Hop, Link, Neighbour, Route, Rule
from tests.property.hosts import KERNEL
from tests.simulation.internet import Uplink

ZONE, UPDATED = "own.example", "shared.test"
UPDATED_SERVER = Endpoint("192.0.2.53")
PROBED_NAME, PROBED_ADDRESSES = "probe.example", ("192.0.2.80", "2001:db8:ffff::80")
SERVERS = ("192.168.1.10", "192.168.1.11")
_MANY_FAMILIES: list[tuple[Family, ...]] = [(4,), (4, 6), (4, 6), (6,)]
_BY_NAME = (
    Probe("tcp", PROBED_NAME, 443),
    *(Probe("icmp", f"192.0.2.{n}") for n in (1, 2, 3)),
    *(Probe("icmp", f"2001:db8:ffff::{n}") for n in (1, 2, 3)),
)


def draw_uplinks(rng: Random) -> tuple[Uplink, ...]:
    count = rng.choice((2, 2, 2, 3, 3, 4))
    return tuple(
        Uplink(f"isp-{letter}", number, rng.choice(_MANY_FAMILIES), rng.random() < 0.7)
        for number, letter in enumerate("abcd"[:count])
    )


def draw_config(rng: Random, uplinks: tuple[Uplink, ...]) -> Config:
    """A random config."""
    wanted = tuple(_uplink(rng, uplink) for uplink in uplinks)
    wanted = _with_returns(Random(repr(wanted)), wanted)
    if len(wanted) > 2 and rng.random() < 0.2:
        wanted = wanted[:-1]
    names = [u.name for u in wanted]
    way = rng.choice(("auto", "auto", "auto", "mark", "conntrack"))
    return Config(
        wanted,
        HostConfig(return_path=way),  # type: ignore[arg-type]  # one of them
        HealthConfig() if rng.random() < 0.8 else HealthConfig(probes=_BY_NAME),
        dns=_dns(rng, names),
        forwards=_forwards() if rng.random() < 0.25 else (),
        outgoing=_outgoing(rng, names),
    )


def _uplink(rng: Random, uplink: Uplink) -> UplinkConfig:
    gateways = () if uplink.learned else tuple(map(uplink.gateway, uplink.families))
    return UplinkConfig(
        uplink.name,
        uplink.dev,
        gateways=gateways,
        rank=rng.choice((0, 0, 1)),
        weight=rng.choice((1, 1, 3)),
    )


def _with_returns(rng: Random, uplinks: tuple[UplinkConfig, ...]) -> tuple[UplinkConfig, ...]:
    """Some are metered, and some give their connections back."""
    return tuple(
        replace(
            uplink,
            metered=rng.random() < 0.25,
            on_return=rng.choice(("stay", "end", "end")),
            grace_s=rng.choice((0, 10, 30)),
        )
        for uplink in uplinks
    )


def _dns(rng: Random, names: list[str]) -> DnsConfig:
    one = rng.choice(names)
    return DnsConfig(
        (
            NameConfig(f"www.{ZONE}"),
            NameConfig(f"best.{ZONE}", "failover"),
            NameConfig(f"one.{ZONE}", uplinks=(one,)),
            NameConfig(f"www.{UPDATED}", rng.choice(("rotate", "weighted"))),
        ),
        ServerConfig((ZONE,)),
        updates=(UpdateConfig(UPDATED, (UPDATED_SERVER,)),),
    )


def _forwards() -> tuple[ForwardConfig, ...]:
    to = tuple(map(ForwardServer, SERVERS))
    return (ForwardConfig((Ports("tcp", 80, 80),), to),)


def _outgoing(rng: Random, names: list[str]) -> OutgoingConfig:
    rules: tuple[OutgoingRule, ...] = ()
    if rng.random() < 0.4:
        via = tuple(rng.sample(names, 2))
        rules = (OutgoingRule(via, transport="tcp", ports=((25, 25),)),)
    return OutgoingConfig(rng.choice(("failover", "failover", "balance")), rules=rules)


# --- the kernel at the beginning ----------------------------------------------------------


def draw_facts(rng: Random, uplinks: tuple[Uplink, ...]) -> Facts:
    links = [Link(1, "lo", loopback=True), Link(2, "lan0")]
    addresses = [Address(4, "lan0", "192.168.1.1", 24), Address(6, "lan0", "fd00:1::1", 64)]
    routes = [
        Route(4, TABLE_MAIN, "192.168.1.0/24", hops=(Hop("lan0"),), src="192.168.1.1", scope=253),
        Route(6, TABLE_MAIN, "fd00:1::/64", 256, hops=(Hop("lan0"),)),
    ]
    rules = tuple(
        Rule(family, priority, table=table, protocol=KERNEL)
        for family in FAMILIES
        for priority, table in ((0, 255), (32766, 254), (32767, 253))
        if family == 4 or priority < 32767
    )
    sysctls = [
        ("net/ipv4/tcp_fwmark_accept", "0"),
        ("net/ipv4/fwmark_reflect", "0"),
        ("net/ipv6/fwmark_reflect", "0"),
        ("net/ipv4/conf/all/rp_filter", rng.choice("012")),
        ("net/ipv4/conf/all/accept_redirects", "1"),
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
    ]
    neighbours = []
    for uplink in uplinks:
        links.append(link(uplink))
        sysctls += link_sysctls(uplink)
        for family in uplink.families:
            addresses.append(uplink.own(family))
            routes.append(connected(uplink, family))
            neighbours.append(neighbour(uplink, family))
            if uplink.learned:
                routes.append(uplink.default(family))
    return Facts(
        links=tuple(links),
        addresses=tuple(addresses),
        routes=tuple(routes),
        rules=rules,
        neighbours=tuple(neighbours),
        sysctls=tuple(sysctls),
    )


def link(uplink: Uplink) -> Link:
    return Link(uplink.index, uplink.dev, uplink.up, uplink.carrier)


def connected(uplink: Uplink, family: Family) -> Route:
    blank = Route(family, TABLE_MAIN, uplink.prefix(family), hops=(Hop(uplink.dev),))
    if family == 6:
        return replace(blank, metric=256, protocol=KERNEL)
    return replace(blank, src=uplink.address(4), scope=253, protocol=KERNEL)


def neighbour(uplink: Uplink, family: Family) -> Neighbour:
    mac = f"02:00:00:00:00:{uplink.number:02x}"
    return Neighbour(family, uplink.dev, uplink.gateway(family), mac, router=True)


def link_sysctls(uplink: Uplink) -> list[tuple[str, str]]:
    """As they are when the link has just appeared."""
    return [
        *((f"net/ipv{f}/neigh/{uplink.dev}/unres_qlen_bytes", "212992") for f in FAMILIES),
        (f"net/ipv4/conf/{uplink.dev}/src_valid_mark", "0"),
        (f"net/ipv4/conf/{uplink.dev}/rp_filter", str(uplink.number % 3)),
        (f"net/ipv6/conf/{uplink.dev}/accept_ra", "1"),
    ]


def probe_flow(family: Family, to: str, source: str, dev: str, mark: int) -> Flow:
    return Flow(family, to, source, oif=dev, mark=mark)

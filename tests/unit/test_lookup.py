"""Where packets go on a planned host: the routing cases of the design, one row each.

wan0  isp-a  203.0.113.10, 2001:db8:a::10       lan0  192.168.1.0/24, fd00:1::/64
wan1  isp-b  198.51.100.10, 2001:db8:b::10      vpn0  a VPN, where a case has one
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ifdefault.model.config import FAMILIES, Config, Family, HostConfig, UplinkConfig
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import TABLE_MAIN, Address, Facts, Hop, Link, Route, Rule
from ifdefault.plan.lookup import Fib
from tests.property import hosts
from tests.property.fakekernel import planned, settle

FAR: dict[Family, str] = {4: "192.0.2.99", 6: "2001:db8:ffff::99"}
A: dict[Family, str] = {4: "203.0.113.10", 6: "2001:db8:a::10"}
B: dict[Family, str] = {4: "198.51.100.10", 6: "2001:db8:b::10"}
NEAR_A: dict[Family, str] = {4: "203.0.113.50", 6: "2001:db8:a::50"}
LAN: dict[Family, str] = {4: "192.168.1.10", 6: "fd00:1::10"}
ARRIVAL_B, OUTGOING_B = 0x02000000, 0x22000000
UP_A, UP_B = UplinkConfig("isp-a", "wan0"), UplinkConfig("isp-b", "wan1")
CONFIG = Config((UP_A, UP_B))
MARKING = Config((UP_A, UP_B), HostConfig(return_path="mark"))

HOST = Facts(
    links=(
        Link(1, "lo", loopback=True),
        Link(2, "wan0"),
        Link(3, "wan1"),
        Link(4, "lan0"),
        Link(5, "vpn0", point_to_point=True),
    ),
    addresses=(
        Address(4, "lo", "127.0.0.1", 8, scope=254),
        Address(4, "wan0", "203.0.113.10", 24),
        Address(4, "wan1", "198.51.100.10", 24),
        Address(4, "lan0", "192.168.1.1", 24),
        Address(4, "vpn0", "100.100.0.1", 32),
        Address(6, "wan0", "2001:db8:a::10", 48),
        Address(6, "wan1", "2001:db8:b::10", 48),
        Address(6, "lan0", "fd00:1::1", 64),
        Address(6, "vpn0", "fd7a::1", 128),
    ),
    routes=(
        Route(4, TABLE_MAIN, "default", hops=(Hop("wan0", "203.0.113.1"),)),
        Route(4, TABLE_MAIN, "default", 100, hops=(Hop("wan1", "198.51.100.1"),)),
        Route(4, TABLE_MAIN, "203.0.113.0/24", hops=(Hop("wan0"),), src="203.0.113.10"),
        Route(4, TABLE_MAIN, "198.51.100.0/24", hops=(Hop("wan1"),), src="198.51.100.10"),
        Route(4, TABLE_MAIN, "192.168.1.0/24", hops=(Hop("lan0"),), src="192.168.1.1"),
        Route(6, TABLE_MAIN, "default", 1024, hops=(Hop("wan0", "2001:db8:a::1"),)),
        Route(6, TABLE_MAIN, "default", 2048, hops=(Hop("wan1", "2001:db8:b::1"),)),
        Route(6, TABLE_MAIN, "2001:db8:a::/48", 256, hops=(Hop("wan0"),)),
        Route(6, TABLE_MAIN, "2001:db8:b::/48", 256, hops=(Hop("wan1"),)),
        Route(6, TABLE_MAIN, "fd00:1::/64", 256, hops=(Hop("lan0"),)),
    ),
    rules=tuple(
        Rule(family, priority, table=table, protocol=2)
        for family in FAMILIES
        for priority, table in ((0, 255), (32766, 254), (32767, 253))
        if family == 4 or priority < 32767
    ),
)


def fib(facts: Facts = HOST, config: Config = CONFIG) -> Fib:
    """The host after apply."""
    return Fib.of(settle(facts, planned(config, facts).desired))


def goes(fib: Fib, flow: Flow) -> str:
    verdict = fib.lookup(flow)
    return verdict.hop.dev if verdict.hop else verdict.kind


CASES: list[tuple[str, Config, tuple[str, ...], dict[str, Any], str]] = [
    # what it shows, config, foreign, the flow ("src", "dst" by family), where it goes
    ("answer from A", CONFIG, (), {"src": A, "dst": FAR}, "wan0"),
    ("answer from B", CONFIG, (), {"src": B, "dst": FAR}, "wan1"),
    ("unbound takes the normal default", CONFIG, (), {"dst": FAR}, "wan0"),
    ("arrival mark", MARKING, (), {"dst": FAR, "mark": ARRIVAL_B}, "wan1"),
    ("arrival mark beats the source", MARKING, (), {"src": A, "dst": FAR, "mark": ARRIVAL_B},
     "wan1"),
    ("forwarded with an arrival mark isn't bounced", MARKING, (),
     {"src": FAR, "dst": LAN, "iif": "wan1", "mark": ARRIVAL_B}, "lan0"),
    ("forwarded far with an arrival mark isn't bounced", MARKING, (),
     {"src": FAR, "dst": NEAR_A, "iif": "wan1", "mark": ARRIVAL_B}, "wan0"),
    ("forwarded from an uplink to a VPN", MARKING, ("tailscale",),
     {"src": FAR, "dst": hosts.BEHIND_VPN, "iif": "wan1", "mark": ARRIVAL_B}, "vpn0"),
    ("the LAN wins over the uplink's table", CONFIG, (), {"src": B, "dst": LAN}, "lan0"),
    ("the LAN wins over an arrival mark", MARKING, (), {"dst": LAN, "mark": ARRIVAL_B}, "lan0"),
    ("a client on A's prefix is answered by B", CONFIG, (), {"src": B, "dst": NEAR_A}, "wan1"),
    ("and unbound goes straight to it", CONFIG, (), {"dst": NEAR_A}, "wan0"),
    ("OpenVPN's halves don't catch replies", CONFIG, ("openvpn",), {"src": B, "dst": FAR}, "wan1"),
    ("and catch what is unbound", CONFIG, ("openvpn",), {"dst": FAR}, "vpn0"),
    ("wg-quick before us", CONFIG, ("wg-quick",), {"src": B, "dst": FAR}, "wan1"),
    ("and catches what is unbound", CONFIG, ("wg-quick",), {"dst": FAR}, "vpn0"),
    ("but not its own packets", CONFIG, ("wg-quick",), {"dst": FAR, "mark": 51820}, "wan0"),
    ("wg-quick after us: the block moves", CONFIG, ("wg-quick above",), {"src": B, "dst": FAR},
     "wan1"),
    ("and it still catches what is unbound", CONFIG, ("wg-quick above",), {"dst": FAR}, "vpn0"),
    ("Tailscale wins over the normal default", CONFIG, ("tailscale",),
     {"dst": hosts.BEHIND_VPN}, "vpn0"),
    ("its client is answered through it", CONFIG, ("tailscale",),
     {"src": B, "dst": hosts.BEHIND_VPN}, "vpn0"),
    ("its own packets don't enter it", CONFIG, ("tailscale",),
     {"dst": FAR, "mark": 0x80000}, "wan0"),
    ("nor bends it replies", CONFIG, ("tailscale",), {"src": B, "dst": FAR}, "wan1"),
    ("bound to a device", CONFIG, (), {"dst": FAR, "oif": "wan1"}, "wan1"),
    ("bound to a device, and a VPN", CONFIG, ("wg-quick above",), {"dst": FAR, "oif": "wan1"},
     "wan1"),
    ("outgoing mark", CONFIG, (), {"dst": FAR, "mark": OUTGOING_B}, "wan1"),
    ("outgoing mark, but to the LAN", CONFIG, (), {"dst": LAN, "mark": OUTGOING_B}, "lan0"),
    ("outgoing mark, but to a VPN", CONFIG, ("tailscale",),
     {"dst": hosts.BEHIND_VPN, "mark": OUTGOING_B}, "vpn0"),
    ("a foreign mark beside ours", CONFIG, (), {"dst": FAR, "mark": OUTGOING_B | 0xFF}, "wan1"),
    ("to ourselves", CONFIG, (), {"dst": B}, "local"),
]  # fmt: skip


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("case", "config", "foreign", "flow", "where"), CASES, ids=lambda v: "")
def test_way(
    case: str, config: Config, foreign: tuple[str, ...], flow: dict[str, Any], where: str,
    family: Family,
) -> None:  # fmt: skip
    by_family = {k: v[family] if isinstance(v, dict) else v for k, v in flow.items()}
    there = fib(hosts.with_foreign(HOST, *foreign), config)
    assert goes(there, Flow(family, **by_family)) == where, case


@pytest.mark.parametrize("family", [4, 6])
def test_wg_quick_started_after_us_is_overtaken(family: Family) -> None:
    """It takes replies until the next plan; then the block precedes its rules."""
    before = settle(HOST, planned(CONFIG, HOST).desired)
    after = hosts.with_foreign(before, "wg-quick above")
    reply = Flow(family, FAR[family], B[family])
    assert goes(Fib.of(after), reply) == "vpn0"
    assert goes(fib(after), reply) == "wan1"


DEFAULTS = [
    ((0, 1), (0, 1), (True, True), "wan0"),  # equal: the config's order
    ((1, 1), (0, 1), (True, True), "wan1"),  # (rank, weight) of A and B, their carriers
    ((0, 1), (0, 5), (True, True), "wan1"),
    ((0, 1), (1, 5), (True, True), "wan0"),
    ((0, 1), (1, 1), (False, True), "wan1"),
    ((0, 1), (1, 1), (False, False), "wan0"),
]


@pytest.mark.parametrize(("a", "b", "carriers", "where"), DEFAULTS)
def test_primary(
    a: tuple[int, int], b: tuple[int, int], carriers: tuple[bool, bool], where: str
) -> None:
    uplinks = (replace(UP_A, rank=a[0], weight=a[1]), replace(UP_B, rank=b[0], weight=b[1]))
    carrier = dict(zip(("wan0", "wan1"), carriers, strict=True))
    links = tuple(replace(k, carrier=carrier.get(k.name, True)) for k in HOST.links)
    there = fib(replace(HOST, links=links), Config(uplinks))
    for family in FAR:
        assert goes(there, Flow(family, FAR[family])) == where


def test_default_names_its_source() -> None:
    for family in FAR:
        assert fib().lookup(Flow(family, FAR[family])).source == A[family]
        assert fib().lookup(Flow(family, FAR[family], oif="wan1")).source == B[family]


# --- the kernel's ways --------------------------------------------------------------------


def bare(*routes: Route, rules: tuple[Rule, ...] = (), facts: Facts = HOST) -> Fib:
    rules = (*rules, Rule(4, 32766, table=TABLE_MAIN), *facts.rules[-2:])
    return Fib.of(replace(facts, routes=routes, rules=rules))


def test_goto_nowhere_is_passed_over() -> None:
    route = Route(4, TABLE_MAIN, "default", hops=(Hop("wan0"),))
    flow = Flow(4, FAR[4])
    assert goes(bare(route, rules=(Rule(4, 5, "goto", goto=40000),)), flow) == "wan0"
    there = (Rule(4, 5, "goto", goto=9), Rule(4, 6, table=TABLE_MAIN), Rule(4, 9, "nop"))
    assert goes(Fib.of(replace(HOST, routes=(route,), rules=there)), flow) == "unreachable"


def test_throw_goes_on_with_the_next_rule() -> None:
    routes = (
        Route(4, 7, "192.0.2.0/24", kind="throw"),
        Route(4, 7, "default", hops=(Hop("wan1"),)),
        Route(4, TABLE_MAIN, "default", hops=(Hop("wan0"),)),
    )
    assert goes(bare(*routes, rules=(Rule(4, 5, table=7),)), Flow(4, "192.0.2.99")) == "wan0"
    assert goes(bare(*routes, rules=(Rule(4, 5, table=7),)), Flow(4, "192.0.3.99")) == "wan1"


def test_refusals_are_not_suppressed() -> None:
    hole = Route(4, TABLE_MAIN, "default", kind="blackhole")
    rule = Rule(4, 5, table=TABLE_MAIN, suppress_prefixlength=0)
    assert goes(bare(hole, rules=(rule,)), Flow(4, FAR[4])) == "blackhole"


def test_device_of_no_route_is_taken_to_be_on_link() -> None:
    """IPv4 only: ip_route_output_key_hash_rcu."""
    assert goes(bare(), Flow(4, FAR[4], oif="lan0")) == "lan0"
    assert bare().lookup(Flow(4, FAR[4], oif="lan0")).source == "192.168.1.1"
    assert goes(bare(), Flow(6, FAR[6], oif="lan0")) == "unreachable"


def test_source_specific_route() -> None:
    routes = (
        Route(6, TABLE_MAIN, "default", 1, hops=(Hop("wan0"),)),
        Route(6, TABLE_MAIN, "default", 9, hops=(Hop("wan1"),), from_prefix="2001:db8:b::/48"),
    )
    assert goes(bare(*routes), Flow(6, FAR[6], B[6])) == "wan1"
    assert goes(bare(*routes), Flow(6, FAR[6], A[6])) == "wan0"


def test_router_preference() -> None:
    low, high = (
        Route(6, TABLE_MAIN, "default", 1024, hops=(Hop(dev),), preference=preference)
        for dev, preference in (("wan0", "low"), ("wan1", "high"))
    )
    medium = replace(low, hops=(Hop("lan0"),), preference="")
    assert goes(bare(low, medium, high), Flow(6, FAR[6])) == "wan1"
    assert goes(bare(low, medium), Flow(6, FAR[6])) == "lan0"


ADDRESSES = (
    Address(4, "wan0", "203.0.113.11", 24, secondary=True),
    Address(4, "wan0", "203.0.113.10", 24),
    Address(4, "wan0", "192.0.2.10", 25),
    Address(6, "wan0", "2001:db8:a::66", 64, deprecated=True),
    Address(6, "wan0", "2001:db8:a::10", 64),
    Address(6, "wan0", "2001:db8:e::10", 64),
    Address(6, "wan0", "fd00:a::10", 64),
    Address(6, "lan0", "fd00:1::1", 64),
)
SOURCES = [
    (4, "", FAR[4], "203.0.113.10"),  # the first that isn't secondary
    (4, "192.0.2.1", FAR[4], "192.0.2.10"),  # the gateway's subnet
    (4, "", "192.0.2.99", "203.0.113.10"),  # the destination's doesn't count
    (6, "", "2001:db8:f::1", "2001:db8:e::10"),  # the longest prefix in common
    (6, "", "2001:db8:a::99", "2001:db8:a::10"),  # never a deprecated one
    (6, "", "fd00:2::1", "fd00:a::10"),  # a unique local one to its like, of the device
]


@pytest.mark.parametrize(("family", "gateway", "dst", "source"), SOURCES)
def test_source_that_the_kernel_picks(family: Family, gateway: str, dst: str, source: str) -> None:
    route = Route(family, TABLE_MAIN, "default", hops=(Hop("wan0", gateway),))
    there = bare(route, facts=replace(HOST, addresses=ADDRESSES))
    assert there.lookup(Flow(family, dst)).source == source


def test_source_of_a_socket_that_talks_to_its_own_host() -> None:
    """Bound to another device than that of the address, so the local table doesn't match."""
    route = Route(6, TABLE_MAIN, "default", hops=(Hop("wan1"),))
    verdict = bare(route).lookup(Flow(6, A[6], oif="wan1"))
    assert (verdict.hop, verdict.source) == (Hop("wan1"), A[6])


def test_source_of_a_device_without_address() -> None:
    route = Route(4, TABLE_MAIN, "default", hops=(Hop("vpn0"),))
    there = bare(route, facts=replace(HOST, addresses=ADDRESSES))
    assert there.lookup(Flow(4, FAR[4])).source == "203.0.113.10"


def test_many_routes_to_one_prefix_are_ranked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers that advertise themselves by the thousand leave as many default routes."""
    routes = [
        Route(6, TABLE_MAIN, "default", n, hops=(Hop("wan0", f"fe80::{n:x}"),)) for n in (3, 2)
    ]
    there = bare(*routes)
    expected = there.lookup(Flow(6, FAR[6]))
    assert expected.route == routes[1]
    monkeypatch.setattr("ifdefault.plan.lookup._rank", None)
    assert there.lookup(Flow(6, NEAR_A[6])).route == expected.route

"""Resolving uplinks, and the reasons why they are pending."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.config import Config, Family, HostConfig, UplinkConfig
from ifdefault.model.errors import ConfigError
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    Desired,
    Facts,
    Hop,
    Link,
    Neighbour,
    Route,
    Rule,
    Uplink,
)
from ifdefault.plan import numbers
from ifdefault.plan.desired import plan
from ifdefault.plan.own_addresses import own_addresses

A, B = UplinkConfig("isp-a", "wan0"), UplinkConfig("isp-b", "wan1")
GATEWAY_A = "203.0.113.1"
VIA_A = Route(4, TABLE_MAIN, "default", hops=(Hop("wan0", GATEWAY_A),))
DEFAULT_B = Route(4, TABLE_MAIN, "default", hops=(Hop("wan1", "198.51.100.1"),))
CONNECTED_A = Route(4, TABLE_MAIN, "203.0.113.0/24", hops=(Hop("wan0"),), src="203.0.113.10")
ADDRESS_A = Address(4, "wan0", "203.0.113.10", 24)
ADDRESS_B = Address(4, "wan1", "198.51.100.10", 24)
HOST = Facts(
    links=(Link(1, "lo", loopback=True), Link(2, "wan0"), Link(3, "wan1")),
    addresses=(ADDRESS_A, ADDRESS_B),
    routes=(VIA_A, CONNECTED_A),
)


def planned(facts: Facts, *uplinks: UplinkConfig, host: HostConfig | None = None) -> Desired:
    config = Config(uplinks, host or HostConfig())
    return plan(config, facts, numbers.assign([u.name for u in uplinks], {})).desired


def resolved(facts: Facts, *uplinks: UplinkConfig) -> list[Uplink]:
    config = Config(uplinks)
    return list(plan(config, facts, numbers.assign([u.name for u in uplinks], {})).uplinks)


def with_addresses(*addresses: Address) -> Facts:
    return replace(HOST, addresses=addresses)


def routes_of(desired: Desired, number: int) -> dict[str, Route]:
    return {r.dst: r for r in desired.routes if r.table == 1000 + number}


PENDING = [
    (UplinkConfig("x", "gone0"), HOST, "interface gone0 doesn't exist"),
    (A, replace(HOST, links=(Link(2, "wan0", up=False),)), "interface wan0 is down"),
    (A, with_addresses(), "no usable address on wan0"),
    (A, with_addresses(replace(ADDRESS_A, tentative=True)), "no usable address on wan0"),
    (A, with_addresses(replace(ADDRESS_A, scope=253)), "no usable address on wan0"),
    (
        replace(A, addresses=("192.0.2.1",)),
        HOST,
        "the host has none of its addresses (192.0.2.1)",
    ),
    (B, HOST, "no gateway is known on wan1, set uplink.isp-b.gateways"),
    (replace(B, gateways=("2001:db8::1",)), with_addresses(ADDRESS_A), "no usable address on wan1"),
]


@pytest.mark.parametrize(("uplink", "facts", "why"), PENDING, ids=lambda v: "")
def test_pending_says_why_and_stops_nobody(uplink: UplinkConfig, facts: Facts, why: str) -> None:
    assert [u.pending for u in resolved(facts, uplink)] == [why]
    other = replace(B, name="other", gateways=("198.51.100.1",))
    beside = replace(facts, links=(*facts.links, Link(9, "wan9")))
    beside = replace(beside, addresses=(*beside.addresses, Address(4, "wan9", "192.0.2.9", 24)))
    both = resolved(beside, uplink, replace(other, interface="wan9", gateways=("192.0.2.1",)))
    assert [u.pending for u in both] == [why, ""]


def test_gateway_of_a_family_without_address_is_left_out() -> None:
    (uplink,) = resolved(HOST, replace(A, gateways=(GATEWAY_A, "2001:db8:a::1")))
    assert uplink.gateways == ((4, GATEWAY_A),)


def test_best_default_of_the_kernel() -> None:
    """Main's first, then the lowest metric, then RFC 4191's preference."""

    def default(gateway: str, table: int = TABLE_MAIN, metric: int = 0, pref: str = "") -> Route:
        hops = (Hop("wan0", gateway),)
        return Route(6, table, "default", metric, hops=hops, preference=pref)

    address = Address(6, "wan0", "2001:db8:a::10", 64)
    order = [
        default("fe80::1", pref="high"),
        default("fe80::2"),
        default("fe80::3", pref="low"),
        default("fe80::4", metric=5),
        default("fe80::5", table=7),
    ]
    for best in range(len(order)):
        facts = replace(HOST, addresses=(address,), routes=tuple(reversed(order[best:])))
        assert resolved(facts, A)[0].gateway(6) == f"fe80::{best + 1}"


def test_our_own_default_is_no_evidence() -> None:
    own = replace(VIA_A, table=77, protocol=PROTOCOL)
    assert resolved(replace(HOST, routes=(own, CONNECTED_A)), A)[0].pending


def test_multipath_default() -> None:
    hops = (Hop("wan1", "198.51.100.1"), Hop("wan0", GATEWAY_A))
    facts = replace(HOST, routes=(Route(4, TABLE_MAIN, "default", hops=hops), CONNECTED_A))
    assert [u.gateway(4) for u in resolved(facts, A, B)] == [GATEWAY_A, "198.51.100.1"]


def test_source_is_an_address_that_stays() -> None:
    """Not deprecated, not secondary, in the gateway's prefix; then as the kernel has them."""
    near = Address(4, "wan0", "203.0.113.10", 24)
    far = Address(4, "wan0", "192.0.2.1", 24)
    assert resolved(with_addresses(far, near), A)[0].source(4) == "203.0.113.10"
    late = replace(near, secondary=True)
    assert resolved(with_addresses(far, late), A)[0].source(4) == "192.0.2.1"
    twin = Address(4, "wan0", "203.0.113.9", 24)
    assert resolved(with_addresses(near, twin), A)[0].source(4) == "203.0.113.10"
    low, high = (Address(6, "wan0", f"2001:db8:a::{n}", 64) for n in (9, 10))
    router = replace(A, gateways=("fe80::1",))
    assert resolved(with_addresses(high, low), router)[0].source(6) == "2001:db8:a::9"


@pytest.mark.parametrize("family", [4, 6])
def test_first_configured_address_is_the_source(family: Family) -> None:
    """Even an IPv4 alias, which the kernel calls secondary, or one in another prefix."""
    first = {4: Address(4, "wan0", "203.0.113.77", 24), 6: Address(6, "wan0", "2001:db8:a::77", 64)}
    alias = replace(first[family], secondary=True)
    others = (ADDRESS_A, Address(6, "wan0", "2001:db8:a::10", 64))
    texts = (alias.address, *(a.address for a in others))
    uplink = replace(A, addresses=texts, gateways=(GATEWAY_A, "fe80::1"))
    assert resolved(with_addresses(*others, alias), uplink)[0].source(family) == alias.address
    leaving = replace(alias, deprecated=True)
    source = resolved(with_addresses(*others, leaving), uplink)[0].source(family)
    assert source == next(a.address for a in others if a.family == family)


# --- as the kernel has it -----------------------------------------------------------------


def named(source: str) -> Route:
    """Main's default with this source."""
    return replace(VIA_A, src=source)


def test_source_of_the_kernels_default_is_kept() -> None:
    alias = replace(ADDRESS_A, address="203.0.113.25", secondary=True)
    facts = replace(with_addresses(ADDRESS_A, alias), routes=(named(alias.address), CONNECTED_A))
    assert resolved(facts, A)[0].source(4) == alias.address
    said = replace(A, addresses=(ADDRESS_A.address, alias.address))
    assert resolved(facts, said)[0].source(4) == ADDRESS_A.address
    other = replace(A, gateways=("203.0.113.2",))
    assert resolved(facts, other)[0].source(4) == ADDRESS_A.address
    gone = replace(facts, addresses=(ADDRESS_A,))
    assert resolved(gone, A)[0].source(4) == ADDRESS_A.address


@pytest.mark.parametrize("on_link", [(Address(4, "wan0", "10.1.0.2", 30),), ()])
def test_source_over_a_transfer_net_is_the_uplinks(on_link: tuple[Address, ...]) -> None:
    """The provider routes an address to us that is on lo; the link may have none."""
    public = Address(4, "lo", "192.0.2.10", 32)
    default = Route(4, TABLE_MAIN, "default", hops=(Hop("wan0", "10.1.0.1"),), src=public.address)
    facts = replace(with_addresses(*on_link, public), routes=(default,))
    desired = planned(facts, A)
    assert routes_of(desired, 1)["default"].src == public.address
    assert {rule.src for rule in desired.rules if rule.src} == {
        f"{a.address}/32" for a in (*on_link, public)
    }
    claimed = replace(B, addresses=(public.address,), gateways=("198.51.100.1",))
    assert public.address not in {a.address for a in resolved(facts, A, claimed)[0].addresses}


def test_source_that_two_defaults_name_is_shared() -> None:
    """A provider-independent address, announced over both."""
    public = Address(4, "lo", "192.0.2.10", 32)
    routes = (named(public.address), replace(DEFAULT_B, src=public.address))
    facts = replace(HOST, addresses=(*HOST.addresses, public), routes=routes)
    assert [u.mechanism for u in resolved(facts, A, B)] == ["mark", "mark"]


def test_rules_choose_the_table() -> None:
    """A metric orders the routes of one table: cloud agents give each card a table of its own."""
    own = Route(4, 101, "default", hops=(Hop("wan0", "203.0.113.2"),))
    main = replace(VIA_A, metric=100)
    facts = replace(HOST, routes=(own, main, CONNECTED_A))
    assert resolved(facts, A)[0].gateway(4) == GATEWAY_A
    rule = Rule(4, 10001, table=101, src=f"{ADDRESS_A.address}/32")
    by_rule = replace(facts, rules=(rule, Rule(4, 32766, table=TABLE_MAIN)))
    assert resolved(by_rule, A)[0].gateway(4) == "203.0.113.2"
    ours = replace(by_rule, rules=(replace(rule, protocol=PROTOCOL), *by_rule.rules[1:]))
    assert resolved(ours, A)[0].gateway(4) == GATEWAY_A


def test_first_of_equal_defaults_in_a_prefix_of_the_link() -> None:
    """`ip route append` adds a second one. That of a lost lease is in no prefix of the link."""
    second = replace(VIA_A, hops=(Hop("wan0", "203.0.113.2"),))
    lost = replace(VIA_A, hops=(Hop("wan0", "192.168.100.1"),))
    for order in ([VIA_A, second], [second, VIA_A], [lost, VIA_A], [lost, second, VIA_A]):
        best = next(route for route in order if route != lost)
        facts = replace(HOST, routes=(*order, CONNECTED_A))
        assert resolved(facts, A)[0].gateway(4) == best.hops[0].gateway
    onlink = replace(lost, hops=(Hop("wan0", "192.168.100.1", onlink=True),))
    assert resolved(replace(HOST, routes=(onlink, VIA_A)), A)[0].gateway(4) == "192.168.100.1"


def default_6(gateway: str, prefix: str = "", metric: int = 1024) -> Route:
    hops = (Hop("wan1", gateway),)
    return Route(6, TABLE_MAIN, "default", metric, hops=hops, from_prefix=prefix)


def test_source_specific_default() -> None:
    """As DHCPv6 clients lay it: for the addresses that it is for, and before a plain one."""
    first, second = (Address(6, "wan1", f"2001:db8:{p}::10", 64) for p in "bc")
    of_second = default_6("fe80::c", "2001:db8:c::/64", metric=2048)

    def of(addresses: tuple[Address, ...], *routes: Route) -> tuple[str | None, str | None]:
        facts = replace(with_addresses(*addresses), routes=routes)
        uplink = resolved(facts, B)[0]
        return uplink.source(6), uplink.gateway(6)

    assert of((second,), of_second) == ("2001:db8:c::10", "fe80::c")
    assert of((second,), default_6("fe80::1"), of_second) == ("2001:db8:c::10", "fe80::c")
    assert of((first, second), of_second) == ("2001:db8:c::10", "fe80::c")
    assert of((first,), of_second) == (None, None)
    assert of((first,), default_6("fe80::1"), of_second) == ("2001:db8:b::10", "fe80::1")


ROUTERS = (default_6("fe80::1"), default_6("fe80::2"))


def choice(macs: dict[str, str], ours: str = "", routes: tuple[Route, ...] = ROUTERS) -> str | None:
    """The gateway, if neighbour discovery knows so much and our default leads to `ours`."""
    known = tuple(Neighbour(6, "wan1", router, mac, router=True) for router, mac in macs.items())
    if ours:
        own = replace(default_6(ours), table=1001, protocol=PROTOCOL)
        routes = (*routes, own)
    address = Address(6, "wan1", "2001:db8:b::10", 64)
    facts = replace(with_addresses(address), routes=routes, neighbours=known)
    return resolved(facts, B)[0].gateway(6)


MAC = "00:00:5e:00:53:01"


def test_router_that_is_unreachable_is_passed_over_while_another_answers() -> None:
    """RFC 4861, 6.3.6."""
    assert choice({}) == "fe80::1"
    assert choice({"fe80::1": ""}) == "fe80::1"
    assert choice({"fe80::1": "", "fe80::2": MAC}) == "fe80::2"
    assert choice({"fe80::1": "", "fe80::2": ""}) == "fe80::1"
    worse = (ROUTERS[0], replace(ROUTERS[1], metric=2048))
    assert choice({"fe80::1": "", "fe80::2": MAC}, routes=worse) == "fe80::2"
    together = (replace(ROUTERS[0], hops=ROUTERS[0].hops + ROUTERS[1].hops),)
    assert choice({"fe80::1": "", "fe80::2": MAC}, routes=together) == "fe80::2"


def test_router_that_comes_back_moves_nothing_unless_it_is_better() -> None:
    both = {"fe80::1": MAC, "fe80::2": MAC}
    assert choice(both, ours="fe80::2") == "fe80::2"
    assert choice({"fe80::1": "", "fe80::2": ""}, ours="fe80::2") == "fe80::2"
    better = (replace(ROUTERS[0], preference="high"), ROUTERS[1])
    assert choice(both, ours="fe80::2", routes=better) == "fe80::1"
    assert choice({"fe80::1": MAC, "fe80::2": ""}, ours="fe80::2") == "fe80::1"


def test_address_that_a_local_route_holds() -> None:
    """As cloud agents add it. It belongs to its interface's uplink, or to a configured one."""
    held = Route(4, TABLE_LOCAL, "198.51.100.50/32", kind="local", hops=(Hop("wan1"),))
    anyip = Route(6, TABLE_LOCAL, "2001:db8:b:1::/64", kind="local", hops=(Hop("lo"),))
    own = (ADDRESS_B, Address(6, "wan1", "2001:db8:b::10", 64))
    facts = replace(
        with_addresses(*own), local=(held, anyip), routes=(DEFAULT_B, default_6("fe80::1"))
    )
    (uplink,) = resolved(facts, B)
    assert [a.address for a in uplink.addresses] == [
        "198.51.100.10",
        "198.51.100.50",
        "2001:db8:b::10",
    ]
    assert uplink.sources == ((4, "198.51.100.10"), (6, "2001:db8:b::10"))
    texts = ("198.51.100.50", "198.51.100.10", "2001:db8:b:1::5", "2001:db8:b::10")
    (uplink,) = resolved(facts, replace(B, addresses=texts))
    assert tuple(a.address for a in uplink.addresses) == texts
    # the kernel takes it as the source of an IPv4 route, not of an IPv6 one
    assert uplink.sources == ((4, "198.51.100.50"), (6, "2001:db8:b::10"))
    assert not own_addresses(facts).find("198.51.100.51")


def test_other_name_of_an_interface() -> None:
    facts = replace(HOST, links=(Link(2, "wan0", altnames=("enp3s0",)),))
    (uplink,) = resolved(facts, replace(A, interface="enp3s0"))
    assert uplink.pending == (
        'interface enp3s0 is another name of wan0, set uplink.isp-a.interface = "wan0"'
    )


def test_deprecated_address_still_answers() -> None:
    old = Address(6, "wan0", "2001:db8:a::1", 64, deprecated=True)
    new = Address(6, "wan0", "2001:db8:a::2", 64)
    desired = planned(with_addresses(old, new), replace(A, gateways=("fe80::1",)))
    assert {rule.src for rule in desired.rules if rule.src} == {
        "2001:db8:a::1/128",
        "2001:db8:a::2/128",
    }
    assert routes_of(desired, 1)["default"].src == "2001:db8:a::2"


def test_address_on_loopback() -> None:
    """A provider may route an address to us that is on lo."""
    address = Address(4, "lo", "192.0.2.10", 32)
    desired = planned(with_addresses(ADDRESS_A, address), replace(A, addresses=("192.0.2.10",)))
    assert routes_of(desired, 1)["default"].src == "192.0.2.10"
    assert {rule.src for rule in desired.rules if rule.src} == {"192.0.2.10/32"}


def test_shared_interface_divides_addresses_by_gateway() -> None:
    facts = with_addresses(ADDRESS_A, replace(ADDRESS_B, dev="wan0"))
    first = replace(A, gateways=(GATEWAY_A,))
    second = replace(B, interface="wan0", gateways=("198.51.100.1",))
    uplinks = resolved(facts, first, second)
    assert [[a.address for a in u.addresses] for u in uplinks] == [
        ["203.0.113.10"],
        ["198.51.100.10"],
    ]
    assert {u.mechanism for u in uplinks} == {"source"}


TWINS = (replace(A, gateways=(GATEWAY_A,)), UplinkConfig("b", "wan0", gateways=("203.0.113.2",)))


def test_one_address_needs_macs() -> None:
    with pytest.raises(ConfigError, match=r"uplink\.b: 203\.0\.113\.10 is isp-a's too"):
        resolved(HOST, replace(TWINS[0], router_macs=("02:00:00:00:00:01",)), TWINS[1])
    known = (
        Neighbour(4, "wan0", GATEWAY_A, "02:00:00:00:00:01"),
        Neighbour(4, "wan0", "203.0.113.2", "02:00:00:00:00:02"),
    )
    uplinks = resolved(replace(HOST, neighbours=known), *TWINS)
    assert [u.mechanism for u in uplinks] == ["mark", "mark"]
    assert [u.router_macs for u in uplinks] == [("02:00:00:00:00:01",), ("02:00:00:00:00:02",)]


def test_point_to_point_needs_no_gateway() -> None:
    facts = replace(HOST, links=(Link(3, "wan1", point_to_point=True),))
    default = routes_of(planned(facts, B), 1)["default"]
    assert default.hops == (Hop("wan1"),)
    assert default.scope == 253


def test_ipv4_by_an_ipv6_next_hop() -> None:
    """A link with only IPv4 addresses, and an IPv6 gateway, which implies an IPv6 next hop."""
    default = routes_of(planned(HOST, replace(B, gateways=("fe80::1",))), 1)["default"]
    assert (default.family, default.hops) == (4, (Hop("wan1", "fe80::1"),))


@pytest.mark.parametrize(
    ("gateway", "connected", "onlink"),
    [
        (GATEWAY_A, CONNECTED_A, False),
        ("192.0.2.1", CONNECTED_A, True),
        ("2001:db8:a::1", Route(6, TABLE_MAIN, "2001:db8:a::/64", hops=(Hop("wan0"),)), False),
        ("2001:db8:a::1", CONNECTED_A, True),
        ("fe80::1", CONNECTED_A, False),
        (GATEWAY_A, replace(CONNECTED_A, hops=(Hop("wan1"),)), True),
    ],
)
def test_gateway_that_no_route_covers_is_on_link(
    gateway: str, connected: Route, onlink: bool
) -> None:
    facts = replace(HOST, routes=(connected,))
    (hop,) = routes_of(planned(facts, replace(A, gateways=(gateway,))), 1)["default"].hops
    assert hop == Hop("wan0", gateway, onlink=onlink)


# --- main's routes in our tables ----------------------------------------------------------


def copies(*routes: Route) -> dict[str, Route]:
    return routes_of(planned(replace(HOST, routes=(VIA_A, *routes)), A), 1)


def test_specific_routes_are_copied() -> None:
    site = Route(4, TABLE_MAIN, "10.0.0.0/8", 5, hops=(Hop("wan0", "203.0.113.7"),), protocol=4)
    assert copies(site)["10.0.0.0/8"] == replace(site, table=1001, protocol=PROTOCOL)


def test_what_is_not_the_uplinks_is_not() -> None:
    others = (
        Route(4, TABLE_MAIN, "10.0.0.0/8", hops=(Hop("wan1"),)),
        Route(4, TABLE_MAIN, "10.1.0.0/16", kind="blackhole"),
        Route(4, 7, "10.2.0.0/16", hops=(Hop("wan0"),)),
        Route(6, TABLE_MAIN, "2001:db8::/32", hops=(Hop("wan0"),)),
    )
    assert copies(*others).keys() == {"default"}


def test_hop_of_a_multipath_route_stands_alone() -> None:
    """A single hop has no weight: the kernel would return a different route."""
    hops = (Hop("wan1", "198.51.100.1", weight=2), Hop("wan0", GATEWAY_A, weight=3))
    copy = copies(Route(4, TABLE_MAIN, "10.0.0.0/8", hops=hops))["10.0.0.0/8"]
    assert copy.hops == (Hop("wan0", GATEWAY_A),)


def test_first_of_two_equal_routes_is_copied() -> None:
    """`ip route append` adds a second one; the kernel uses the first."""
    two = [
        Route(4, TABLE_MAIN, "10.0.0.0/8", hops=(Hop("wan0", f"203.0.113.{n}"),)) for n in (9, 7)
    ]
    assert copies(*two)["10.0.0.0/8"].hops == (Hop("wan0", "203.0.113.9"),)


def test_default_keeps_the_kernels_metrics() -> None:
    tuned = replace(VIA_A, metrics=((2, 1400),))
    desired = planned(replace(HOST, routes=(tuned, CONNECTED_A)), A)
    assert routes_of(desired, 1)["default"].metrics == ((2, 1400),)

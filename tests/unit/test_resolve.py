"""Resolving uplinks, and the reasons why they are pending."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.config import Config, HostConfig, UplinkConfig
from ifdefault.model.errors import ConfigError
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_MAIN,
    Address,
    Desired,
    Facts,
    Hop,
    Link,
    Neighbour,
    Route,
    Uplink,
)
from ifdefault.plan import numbers
from ifdefault.plan.desired import plan

A, B = UplinkConfig("isp-a", "wan0"), UplinkConfig("isp-b", "wan1")
GATEWAY_A = "203.0.113.1"
VIA_A = Route(4, TABLE_MAIN, "default", hops=(Hop("wan0", GATEWAY_A),))
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
    """Not deprecated, not secondary, in the gateway's prefix; then the order, or the lowest."""
    near = Address(4, "wan0", "203.0.113.10", 24)
    far = Address(4, "wan0", "192.0.2.1", 24)
    assert resolved(with_addresses(far, near), A)[0].source(4) == "203.0.113.10"
    late = replace(near, secondary=True)
    assert resolved(with_addresses(far, late), A)[0].source(4) == "192.0.2.1"
    twin = Address(4, "wan0", "203.0.113.9", 24)
    assert resolved(with_addresses(near, twin), A)[0].source(4) == "203.0.113.9"
    said = replace(A, addresses=("203.0.113.10", "203.0.113.9"))
    assert resolved(with_addresses(twin, near), said)[0].source(4) == "203.0.113.10"


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

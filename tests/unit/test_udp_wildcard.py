"""The source address of replies of wildcard UDP servers, for every client."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ifdefault.model.address import family_of
from ifdefault.model.config import Config, Family, HostConfig
from ifdefault.model.flow import Flow
from ifdefault.model.health import Decision
from ifdefault.model.kernel import TABLE_MAIN, Address, Facts, Hop, Link, Redirect, Route, Rule
from ifdefault.plan import numbers, prefixes, udp_wildcard
from ifdefault.plan.desired import plan
from ifdefault.plan.lookup import Fib
from tests.property import hosts
from tests.property.fakekernel import planned, settle
from tests.unit.test_lookup import CONFIG, HOST

NAIVE = replace(HOST, wildcard_udp=((4, 53), (6, 53)))


def redirects(facts: Facts, family: Family = 4) -> tuple[Redirect, ...]:
    found = planned(CONFIG, facts).desired.redirects
    return tuple(r for r in found if r.family == family)


def answer(found: tuple[Redirect, ...], client: str) -> str:
    """The source of replies to a client; "" if it isn't redirected."""
    value = prefixes.number(client)
    for r in found:
        if prefixes.number(r.first) <= value <= prefixes.number(r.last):
            return r.address
    return ""


@pytest.mark.parametrize(
    ("client", "address"),
    [
        ("192.0.2.99", "203.0.113.10"),  # the normal default
        ("0.0.0.1", "203.0.113.10"),
        ("255.255.255.254", "203.0.113.10"),
        ("198.51.100.77", "198.51.100.10"),  # a neighbour on B's link
        ("198.51.101.0", "203.0.113.10"),
        ("192.168.1.10", "192.168.1.1"),
        ("2001:db8:ffff::99", "2001:db8:a::10"),
        ("2001:db8:b::77", "2001:db8:b::10"),
        ("fd00:1::10", "fd00:1::1"),
    ],
)
def test_answer(client: str, address: str) -> None:
    assert answer(redirects(NAIVE, family_of(client)), client) == address


@pytest.mark.parametrize("foreign", [(), *((name,) for name in hosts.FOREIGN)])
@pytest.mark.parametrize("family", [4, 6])
def test_answers_are_those_of_the_host_as_applied(foreign: tuple[str, ...], family: Family) -> None:
    """At every border, and next to it, a lookup on the applied host gives the same."""
    facts = hosts.with_foreign(NAIVE, *foreign)
    desired = planned(CONFIG, facts).desired
    fib = Fib.of(settle(facts, desired))
    found = tuple(r for r in desired.redirects if r.family == family)
    assert found
    for r in found:
        for client in (r.first, r.last):
            assert fib.lookup(Flow(family, client)).source == r.address


def test_pieces_adjoin_and_differ() -> None:
    for family in (4, 6):
        found = [r for r in planned(CONFIG, NAIVE).desired.redirects if r.family == family]
        for one, other in itertools.pairwise(found):
            assert prefixes.number(one.last) < prefixes.number(other.first)
            adjoin = prefixes.number(one.last) + 1 == prefixes.number(other.first)
            assert not adjoin or one.address != other.address


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_who_cannot_be_answered_needs_no_redirect(kind: str) -> None:
    """A ban splits nothing: neither of one client, nor at the border of a range, nor as a rule."""
    banned = ("10.0.0.0/8", "192.0.2.77/32", "198.51.100.0/32", "192.168.1.255/32", "0.0.0.0/32")
    routes = tuple(Route(4, TABLE_MAIN, dst, kind=kind) for dst in banned)
    rules = tuple(Rule(4, 100, kind, dst=dst) for dst in banned)
    for facts in (
        replace(NAIVE, routes=(*NAIVE.routes, *routes)),
        replace(NAIVE, rules=(*NAIVE.rules, *rules)),
    ):
        desired = planned(CONFIG, facts).desired
        assert desired.redirects == planned(CONFIG, NAIVE).desired.redirects
        assert desired.tables == planned(CONFIG, NAIVE).desired.tables


def test_a_route_like_its_surroundings_needs_no_redirect_of_its_own() -> None:
    hop = Hop("wan0", "203.0.113.1")
    routes = tuple(Route(4, TABLE_MAIN, f"192.0.2.{n}/32", hops=(hop,)) for n in range(9))
    assert redirects(replace(NAIVE, routes=(*NAIVE.routes, *routes))) == redirects(NAIVE)


def test_each_network_of_an_interface_is_answered_from_its_own_address() -> None:
    """Even if two adjoin, so that packets to both go the same way."""
    networks = ("2001:db8:7:10", "2001:db8:7:11")
    facts = Facts(
        links=(Link(2, "lan0"),),
        addresses=tuple(Address(6, "lan0", f"{network}::1", 64) for network in networks),
        routes=tuple(Route(6, TABLE_MAIN, f"{net}::/64", hops=(Hop("lan0"),)) for net in networks),
        rules=(Rule(6, 32766, table=TABLE_MAIN),),
    )
    found = udp_wildcard.redirects(facts, 53, 6)
    for network in networks:
        assert answer(found, f"{network}::99") == f"{network}::1"


def test_a_table_that_nothing_looks_up_splits_nothing() -> None:
    other = Route(4, 77, "192.0.2.0/24", hops=(Hop("wan1", "198.51.100.1"),))
    assert redirects(replace(NAIVE, routes=(*NAIVE.routes, other))) == redirects(NAIVE)


def test_a_goto_leads_on_though_its_target_refuses() -> None:
    jump = Rule(4, 100, "goto", goto=200)
    skipped = Rule(4, 150, table=77)
    target = Rule(4, 200, "blackhole", dst="192.0.2.0/24")
    other = Route(4, 77, "default", hops=(Hop("wan1", "198.51.100.1"),))
    facts = replace(
        NAIVE, routes=(*NAIVE.routes, other), rules=(*NAIVE.rules, jump, skipped, target)
    )
    assert redirects(facts) == redirects(NAIVE)


def test_one_address_needs_no_redirect() -> None:
    one = Config(CONFIG.uplinks[:1])
    assert planned(one, NAIVE).desired.redirects == ()


@pytest.mark.parametrize(
    ("setting", "ports"),
    [("auto", (53, 443)), ("off", ()), ((443, 8443), (443, 8443))],
)
def test_ports(setting: object, ports: tuple[int, ...]) -> None:
    config = replace(CONFIG, host=HostConfig(udp_wildcard=setting))  # type: ignore[arg-type]
    sockets: tuple[tuple[Family, int], ...] = (
        (4, 53), (4, 68), (4, 443), (4, 5353), (4, 40000), (6, 99),
    )  # fmt: skip
    assert udp_wildcard.ports(config, replace(HOST, wildcard_udp=sockets), 4) == ports


def test_clients_ports_are_the_hosts_own() -> None:
    facts = replace(
        HOST,
        wildcard_udp=((4, 40000), (4, 1500)),
        sysctls=(("net/ipv4/ip_local_port_range", "1024 2000"),),
    )
    assert udp_wildcard.ports(CONFIG, facts, 4) == (40000,)


def test_answers_stay_where_they_are_while_the_default_moves() -> None:
    reranked = Config((replace(CONFIG.uplinks[0], rank=1), CONFIG.uplinks[1]))
    desired = planned(reranked, NAIVE).desired
    of_four = tuple(r for r in desired.redirects if r.family == 4)
    assert answer(of_four, "192.0.2.99") == "203.0.113.10"
    assert [r.table for r in desired.rules if r.family == 4][-1] == 1002


def test_the_address_moves_only_when_its_uplink_is_not_usable() -> None:
    """It changes by a drain or failure of the first uplink, not by another's rank."""
    names = tuple(u.name for u in CONFIG.uplinks)
    numbering = numbers.assign(names, {})
    moved = Decision(((4, names[::-1]),), ((4, names),))
    dead = Decision(((4, names[::-1]),), ((4, names[1:]),))
    for decision, address in ((moved, "203.0.113.10"), (dead, "198.51.100.10")):
        found = plan(CONFIG, NAIVE, numbering, decision).desired.redirects
        assert answer(tuple(r for r in found if r.family == 4), "192.0.2.99") == address

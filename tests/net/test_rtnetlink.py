"""Routes, rules and groups survive the way to the kernel and back.

core ── isp-a ── wan0 host lan0 ── content     (topology "one"; only the host is used)
"""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial

import pytest

from ifdefault.kernel import read
from ifdefault.kernel.perform import Performer
from ifdefault.kernel.read import read_facts
from ifdefault.lab.node import Node
from ifdefault.model.errors import KernelError
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_MAIN,
    AddRule,
    DeleteRoute,
    DeleteRule,
    Facts,
    Hop,
    Operation,
    PutRoute,
    Route,
    Rule,
    Scope,
    SetGroup,
    SetSysctl,
)
from ifdefault.plan.originals import indexes
from tests.net.conftest import LabWorld

NEXT_4, NEXT_6 = Hop("wan0", "203.0.113.1"), Hop("wan0", "2001:db8:a::1")
TUNED_4, TUNED_6 = ((2, 1400), (8, 1360), (11, 20)), ((2, 1280), (10, 32))  # RTAX_…
A4, A6 = "203.0.113.10", "2001:db8:a::10"
ROUTES = [
    Route(4, 1001, "default", hops=(NEXT_4,), src=A4),
    Route(4, 1000, "default", 7, hops=(Hop("wan0", "198.51.100.1", onlink=True),), src=A4),
    Route(4, 1001, "203.0.113.0/24", hops=(Hop("wan0"),), src=A4, scope=253),
    Route(4, 1001, "0.0.0.0/1", hops=(Hop("wan0"),), scope=253),
    Route(4, 1001, "10.0.0.0/8", hops=(Hop("wan0", "fe80::1"),)),
    Route(4, 1001, "10.1.0.0/16", hops=(NEXT_4, Hop("lan0", "192.168.1.9", weight=3))),
    Route(4, 1001, "10.2.0.0/16", hops=(NEXT_4,), metrics=TUNED_4),
    Route(4, 200, "10.3.0.0/16", kind="blackhole"),
    Route(4, 1001, "10.4.0.0/16", kind="throw"),
    Route(6, 1001, "default", 1024, hops=(NEXT_6,), src=A6),
    Route(6, 1001, "default", 1025, hops=(Hop("wan0", "fe80::1"),), src=A6, preference="low"),
    Route(6, 1001, "::/3", 256, hops=(Hop("wan0"),)),
    Route(6, 1001, "2001:db8:e::/48", 1024, hops=(Hop("wan0", "2001:db8:b::1", onlink=True),)),
    Route(6, 1001, "2001:db8:d::/48", 5, hops=(NEXT_6, Hop("lan0", "fd00:1::9", weight=2))),
    Route(6, 1001, "2001:db8:c::/48", 1024, hops=(NEXT_6,), metrics=TUNED_6),
    Route(6, 1001, "2001:db8:9::/48", 1024, kind="blackhole", hops=(Hop("lo"),)),
]  # fmt: skip
RULES = [
    Rule(4, 5000, "goto", goto=5050, iif="wan0"),
    Rule(4, 5010, table=254, suppress_prefixlength=7, suppress_ifgroup=171),
    Rule(4, 5020, table=1001, mark=0x01000000, mask=0x3F000000),
    Rule(4, 5021, table=52, mask=0xC0FFFFFF, suppress_prefixlength=0),
    Rule(4, 5030, table=1001, src=f"{A4}/32"),
    Rule(4, 5031, table=200, dst="10.0.0.0/8", invert=True),
    Rule(4, 5040, table=1001, oif="wan0"),
    Rule(4, 5050, "nop"),
    Rule(4, 5060, "unreachable", mark=1, mask=0xFFFFFFFF),
    Rule(4, 5070, table=1001, iif="lo", ip_proto=17, dport=(80, 90), uids=(0, 1000)),
    Rule(6, 5030, table=1001, src=f"{A6}/128", dst="2001:db8::/32"),
    Rule(6, 5061, "prohibit", iif="gone0"),
    Rule(6, 5062, "blackhole", src="fd00::/8"),
    Rule(6, 5071, table=1001, dst="2001:db8::/32", mask=0x20000000, uids=(1000, 1000)),
]
FOREIGN_RULES = {
    "pref 100 from all ipproto tcp dport 80-90 lookup 7": Rule(
        4, 100, table=7, ip_proto=6, dport=(80, 90)
    ),
    "pref 101 from all ipproto udp sport 53 lookup 7": Rule(
        4, 101, table=7, ip_proto=17, sport=(53, 53)
    ),
    "pref 102 from all uidrange 10-20 lookup 7": Rule(4, 102, table=7, uids=(10, 20)),
    "pref 103 from 10.0.0.0/8 tos 0x10 lookup 7": Rule(4, 103, table=7, src="10.0.0.0/8", tos=16),
    "pref 104 not from all fwmark 51820 lookup 51820": Rule(
        4, 104, table=51820, mark=51820, mask=0xFFFFFFFF, invert=True
    ),
    "pref 105 from all l3mdev": Rule(4, 105, unfollowed=True),
}


@pytest.fixture
def host(lab_world: LabWorld) -> Node:
    return lab_world("one")["host"]


def performed(host: Node, *operations: Operation) -> Facts:
    """The facts of the host after these operations."""

    def inside() -> Facts:
        with Performer(indexes(read_facts())) as performer:
            for operation in operations:
                performer.perform(operation)
        return read_facts()

    return host.python(inside)


def ours(route: Route) -> Route:
    return Route(**{f: getattr(route, f) for f in Route.__slots__} | {"protocol": PROTOCOL})


def ours_too(rule: Rule) -> Rule:
    return Rule(**{f: getattr(rule, f) for f in Rule.__slots__} | {"protocol": PROTOCOL})


def test_routes(host: Node) -> None:
    before = host.python(read_facts).routes
    wanted = [ours(route) for route in ROUTES]
    facts = performed(host, *(PutRoute(route) for route in wanted))
    assert sorted(set(facts.routes) - set(before)) == sorted(wanted)
    facts = performed(host, *(DeleteRoute(route) for route in reversed(wanted)))
    assert facts.routes == before


@pytest.mark.parametrize("family", [4, 6])
def test_route_is_replaced(host: Node, family: int) -> None:
    """On-link, or through another router, with the same metric."""
    first = next(ours(r) for r in ROUTES if (r.family, r.dst) == (family, "default"))
    for hop in (Hop("wan0"), Hop("lan0"), first.hops[0]):
        other = Route(first.family, 1001, "default", first.metric, hops=(hop,), protocol=PROTOCOL,
                      scope=0 if hop.gateway or family == 6 else 253)  # fmt: skip
        facts = performed(host, PutRoute(first), PutRoute(other))
        found = [r for r in facts.routes if r.table == 1001 and r.family == family]
        assert found == [other]


def test_rules(host: Node) -> None:
    before = host.python(read_facts).rules
    wanted = [ours_too(rule) for rule in RULES]
    facts = performed(host, *(AddRule(rule) for rule in wanted))
    assert [rule for rule in facts.rules if rule not in before] == wanted
    assert performed(host, *(DeleteRule(rule) for rule in wanted)).rules == before


def test_equal_rules_stand_twice_and_the_first_goes(host: Node) -> None:
    one, other = (Rule(4, 32765, table=table, protocol=PROTOCOL) for table in (1000, 1001))
    facts = performed(host, AddRule(one), AddRule(other), AddRule(one), DeleteRule(one))
    assert [rule for rule in facts.rules if rule.priority == 32765] == [other, one]


@pytest.mark.parametrize("text", FOREIGN_RULES)
def test_foreign_rule_is_understood(host: Node, text: str) -> None:
    host.run(["ip", "rule", "add", *text.split()])
    found = [rule for rule in host.python(read_facts).rules if 100 <= rule.priority < 200]
    wanted = FOREIGN_RULES[text]
    assert [
        Rule(**{f: getattr(r, f) for f in Rule.__slots__} | {"protocol": 0}) for r in found
    ] == [wanted]


def test_what_a_rule_does_not_select_by_is_anything_where_it_is_deleted(host: Node) -> None:
    """Why our rules of one priority differ in their masks: see plan.outgoing_rules."""
    wide, narrow = (Rule(4, 900, table=7, protocol=PROTOCOL, dst=d) for d in ("", "10.0.0.0/8"))
    facts = performed(host, AddRule(narrow), AddRule(wide), DeleteRule(wide))
    assert [rule for rule in facts.rules if rule.priority == 900] == [wide]


def test_group_and_sysctl(host: Node) -> None:
    name = "net/ipv4/conf/wan0/rp_filter"
    facts = performed(host, SetGroup("wan0", 171, 0), SetSysctl(name, "2", "0"))
    assert {link.name: link.group for link in facts.links} == {"lo": 0, "wan0": 171, "lan0": 0}
    assert dict(facts.sysctls)[name] == "2"


def test_what_is_gone_needs_no_deleting(host: Node) -> None:
    before = host.python(read_facts)
    gone = ours(Route(4, 1001, "10.0.0.0/8", hops=(Hop("gone0"),)))
    operations = (DeleteRule(ours_too(RULES[0])), DeleteRoute(ours(ROUTES[0])), DeleteRoute(gone))
    assert performed(host, *operations).routes == before.routes


def test_refusal_is_told_in_the_kernels_words(host: Node) -> None:
    with pytest.raises(KernelError, match=r"PutRoute: .*gateway.* \(ENETUNREACH\)"):
        performed(host, PutRoute(ours(Route(4, 1001, "default", hops=(Hop("wan0", "9.9.9.9"),)))))
    with pytest.raises(KernelError, match="no interface 'gone0'"):
        performed(host, PutRoute(ours(Route(4, 1001, "default", hops=(Hop("gone0"),)))))


def test_of_large_tables_only_what_matters_is_read(
    host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that no rule looks up isn't read, nor is more than the first routes of one."""
    monkeypatch.setattr(read, "OTHERS_MAX", 5)
    plain = Route(4, 4242, "default", hops=(NEXT_4,))
    lines = [f"route add 10.7.{n}.0/24 dev wan0 table 4242\n" for n in range(6)]
    lines += [f"route add fd00:7:{n:x}::/48 dev wan0 table 4242\n" for n in range(6)]
    host.ip("route add default via 203.0.113.1 dev wan0 table 4242\n" + "".join(lines))
    scope = Scope(interfaces=frozenset({"wan0"}))

    def in_table(facts: Facts) -> list[Route]:
        return [replace(r, protocol=0) for r in facts.routes if r.table == 4242]

    facts = host.python(lambda: read_facts(scope))
    assert (in_table(facts), facts.unread) == ([], ())
    stray = replace(ours(ROUTES[0]), table=4242, metric=9)
    performed(host, PutRoute(stray))
    assert host.python(lambda: read_facts(scope)).routes == facts.routes
    assert stray in host.python(lambda: read_facts(replace(scope, strays=True))).routes
    performed(host, DeleteRoute(stray))
    host.ip("rule add pref 7777 from 192.0.2.1 lookup 4242\n")
    facts = host.python(lambda: read_facts(scope))
    assert (in_table(facts), facts.unread) == ([plain], ((4, 4242),))
    host.ip("rule add pref 7777 from fd00:9::1 lookup 4242\n", "-6")
    host.ip("route del 10.7.0.0/24 table 4242\nroute del 10.7.1.0/24 table 4242\n")
    facts = host.python(lambda: read_facts(scope))
    assert len([route for route in in_table(facts) if route.family == 4]) == 5
    assert facts.unread == ((6, 4242),)


def test_the_defaults_of_large_tables_are_read(host: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "ROUTES_MAX", 5)
    lines = [f"route add 10.7.{n}.0/24 dev lan0 proto bird\n" for n in range(9)]
    lines += [f"route add fd00:7:{n:x}::/48 dev lan0 proto bird\n" for n in range(9)]
    host.ip("".join(lines))
    before = host.python(partial(read_facts, Scope()))
    assert before.unread == ((4, TABLE_MAIN), (6, TABLE_MAIN))
    gateways = {4: "203.0.113.1", 6: "2001:db8:a::1"}
    for protocol in ("ra", "dhcp", "static", "boot"):
        for family, gateway in gateways.items():
            host.ip(
                f"route replace default via {gateway} dev wan0 proto {protocol}\n", f"-{family}"
            )
        facts = host.python(partial(read_facts, Scope()))
        defaults = [r for r in facts.routes if r.dst == "default" and r.hops[0].dev == "wan0"]
        assert [r.hops[0].gateway for r in defaults] == [*gateways.values()]


def test_after_changes_of_ours_only_what_they_change_is_read_again(host: Node) -> None:
    scope = Scope(frozenset({1001}), frozenset({"wan0"}))

    def read_again(*operations: Operation) -> None:
        before = host.python(partial(read_facts, scope))
        performed(host, *operations)
        facts = host.python(partial(read_facts, scope, after=before))
        whole = host.python(partial(read_facts, scope))
        assert sorted(facts.routes) == sorted(whole.routes)
        assert replace(facts, routes=()) == replace(whole, routes=())

    wanted = [ours(route) for route in ROUTES if route.table == 1001]
    rules = [ours_too(rule) for rule in RULES]
    read_again(*(PutRoute(route) for route in wanted), *(AddRule(rule) for rule in rules))
    read_again(*(DeleteRule(rule) for rule in rules), *(DeleteRoute(r) for r in wanted[::-1]))


def test_settings_and_neighbours_are_read_of_the_interfaces_that_matter(host: Node) -> None:
    host.ip(
        "neigh add 203.0.113.77 lladdr 02:00:00:00:00:77 dev wan0\n"
        "neigh add 192.168.1.77 lladdr 02:00:00:00:00:77 dev lan0\n"
    )
    lan0 = host.python(lambda: socket.if_nametoindex("lan0"))
    for scope, dev in (
        (Scope(interfaces=frozenset({"wan0"})), "wan0"),
        (Scope(indexes=frozenset({lan0})), "lan0"),
    ):
        facts = host.python(partial(read_facts, scope))
        of_links = {name.split("/")[3] for name, _ in facts.sysctls if name.count("/") == 4}
        assert of_links - {"all"} == {dev}
        assert {neighbour.dev for neighbour in facts.neighbours} == {dev}


def test_whether_a_link_forwards(host: Node) -> None:
    for value in (1, 0):
        host.sysctl("net.ipv4.conf.lan0.forwarding", value)
        [lan] = [link for link in host.python(read_facts).links if link.name == "lan0"]
        assert lan.forwards is bool(value)

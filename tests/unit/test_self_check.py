"""Hosts of other people's making: what is avoided, what is named, and whose rule or route it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.config import Family
from ifdefault.model.flow import Flow, Question, RouteReply
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation
from ifdefault.model.kernel import TABLE_LOCAL, TABLE_MAIN, Address, Facts, Hop, Link, Route, Rule
from ifdefault.plan import self_check
from ifdefault.plan.lookup import Fib
from ifdefault.plan.prepare import prepare, resolve
from tests.property.fakekernel import perform
from tests.unit.test_lookup import CONFIG, FAR, HOST, A, B, goes

A_DOWN = Decision(
    order=((4, ("isp-b", "isp-a")), (6, ("isp-b", "isp-a"))),
    usable=((4, ("isp-b",)), (6, ("isp-b",))),
)
CONFLICTS = ("sysctl", "ip rule", "ip -6 rule", "the default route")  # other checks' problems


def applied(facts: Facts, decision: Decision | None = None) -> tuple[Fib, list[str]]:
    """The lookup after apply, and what isn't as meant, as predicted and as found: they agree."""
    prepared = prepare(resolve(CONFIG, Observation(facts)), decision, thorough=True)
    expected = [str(p) for p in prepared.problems if not p.where.startswith(CONFLICTS)]
    for operation in prepared.operations:
        facts = perform(facts, operation)
    fib = Fib.of(facts)
    answers = self_check.ask(fib, prepared.questions)
    found = self_check.find(CONFIG, facts, prepared.uplinks, answers, decision)
    assert [str(problem) for problem in found] == expected
    return fib, [str(problem) for problem in found]


def with_(*routes: Route, rules: tuple[Rule, ...] = ()) -> Facts:
    merged = sorted((*HOST.rules, *rules), key=lambda rule: (rule.family, rule.priority))
    return replace(HOST, routes=(*HOST.routes, *routes), rules=tuple(merged))


def test_a_plain_host_is_as_meant() -> None:
    _, problems = applied(HOST)
    assert problems == []


@pytest.mark.parametrize("family", [4, 6])
def test_the_rule_of_table_local_may_be_anywhere(family: Family) -> None:
    rules = [r for r in HOST.rules if (r.family, r.table) != (family, TABLE_LOCAL)]
    rules.append(Rule(family, 32765, table=TABLE_LOCAL, protocol=3))
    moved = replace(HOST, rules=tuple(sorted(rules, key=lambda r: (r.family, r.priority))))
    fib, problems = applied(moved)
    assert problems == []
    assert goes(fib, Flow(family, A[family], FAR[family], iif="wan0")) == "local"
    assert goes(fib, Flow(family, A[family], B[family])) == "local"


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_last_resort_in_main_kills_no_other_uplink(family: Family, kind: str) -> None:
    last = Route(family, TABLE_MAIN, "default", 4278198272, kind=kind)
    own = Route(
        family, 101, "default", hops=(Hop("wan1", "198.51.100.1" if family == 4 else "fe80::1"),)
    )
    others = tuple(r for r in HOST.routes if r.family != family or r.dst != "default")
    only_a_in_main = replace(HOST, routes=(*others, last, own))
    fib, _ = applied(only_a_in_main)
    assert goes(fib, Flow(family, FAR[family], B[family])) == "wan1"
    assert goes(fib, Flow(family, FAR[family])) == "wan1"
    lan = "192.168.1.77" if family == 4 else "fd00:1::77"
    assert goes(fib, Flow(family, lan, B[family])) == "lan0", "main's specific routes still win"


def test_a_ban_is_meant() -> None:
    ban = Route(4, TABLE_MAIN, "192.0.2.99/32", kind="blackhole")
    fib, problems = applied(with_(ban, Route(4, TABLE_MAIN, "240.0.0.0/4", kind="unreachable")))
    assert problems == []
    assert goes(fib, Flow(4, "192.0.2.99", B[4])) == "blackhole"


def test_a_vpns_last_resort_takes_no_reply() -> None:
    vpn = (
        Route(4, 52, "100.64.0.0/10", hops=(Hop("vpn0"),)),
        Route(4, 52, "default", kind="unreachable"),
    )
    fib, problems = applied(with_(*vpn, rules=(Rule(4, 5270, table=52, protocol=3),)))
    assert goes(fib, Flow(4, FAR[4], B[4])) == "wan1"
    assert goes(fib, Flow(4, "100.64.0.9", B[4])) == "vpn0"
    assert [p.partition(":")[0] for p in problems] == ["uplink.isp-a"], "a kill switch is named"
    assert "new IPv4 connections are meant to leave by wan0, but have no route" in problems[0]


@pytest.mark.parametrize("priority", [70, 110, 149, 4999])
def test_the_block_is_laid_above_a_rule_that_takes_replies(priority: int) -> None:
    mesh = Rule(4, priority, table=7120, mark=0x1BD00, mask=0xFFFFFFFF, invert=True, protocol=3)
    fib, problems = applied(with_(Route(4, 7120, "default", hops=(Hop("vpn0"),)), rules=(mesh,)))
    assert problems == []
    assert goes(fib, Flow(4, FAR[4], B[4])) == "wan1"
    assert goes(fib, Flow(4, FAR[4])) == "vpn0", "outgoing connections are the VPN's"


def test_a_foreign_default_before_the_primarys_is_named() -> None:
    both = (Hop("wan0", "203.0.113.1"), Hop("wan1", "198.51.100.1"))
    shorewall = Rule(4, 32765, table=250, protocol=3)
    _, [problem] = applied(with_(Route(4, 250, "default", hops=both), rules=(shorewall,)), A_DOWN)
    assert problem == (
        "uplink.isp-b: new IPv4 connections are meant to leave by wan1, but leave by wan0: "
        "ip rule pref 32765 from all lookup 250; another program's; run `ip rule del "
        "pref 32765 from all lookup 250` if the primary uplink is to be used"
    )


def test_another_table_that_leads_the_same_way_is_named() -> None:
    """It won't follow a failover."""
    shorewall = Rule(4, 32765, table=250, protocol=3)
    same = Route(4, 250, "default", hops=(Hop("wan0", "203.0.113.1"),))
    _, [problem] = applied(with_(same, rules=(shorewall,)))
    assert problem.startswith(
        "uplink.isp-a: new IPv4 connections are meant to leave by wan0, but another table decides, "
        "250: ip rule pref 32765 from all lookup 250"
    )


def test_chance_is_no_agreement() -> None:
    question = Question(
        "outgoing", "isp-b", Flow(4, FAR[4]), "wan1", "198.51.100.1", 1002, ("wan1",)
    )
    assert question.is_met(RouteReply("unicast", "wan1", "198.51.100.1", 1002))
    assert not question.is_met(RouteReply("unicast", "wan1", "198.51.100.1", 250))
    assert question.is_met(RouteReply("unicast", "vpn0", "", 250)), "a VPN's"


def test_a_family_without_a_default_is_named() -> None:
    facts = replace(
        HOST, routes=tuple(r for r in HOST.routes if r.hops[0].gateway != "203.0.113.1")
    )
    _, [problem] = applied(facts)
    assert problem == (
        "uplink.isp-a: wan0 has no IPv4 default route for 203.0.113.10; renew it (DHCP, router "
        "advertisement), or set uplink.isp-a.gateways"
    )


def test_a_route_to_an_uplink_that_is_down_is_named_or_avoided() -> None:
    hop = (Hop("wan0", "203.0.113.1"),)
    learned = Route(4, TABLE_MAIN, "1.1.1.1/32", 100, hops=hop, protocol=16)
    chosen = Route(4, TABLE_MAIN, "9.9.9.0/24", hops=hop, protocol=4)
    fib, [problem] = applied(with_(learned, chosen), A_DOWN)
    assert goes(fib, Flow(4, "1.1.1.1")) == "wan1"
    assert goes(fib, Flow(4, "9.9.9.9")) == "wan0"
    assert problem.startswith(
        "ip route 9.9.9.0/24 via 203.0.113.1 dev wan0 table main: leads to isp-a"
    )
    fib, problems = applied(with_(learned, chosen))
    assert goes(fib, Flow(4, "1.1.1.1")) == "wan0", "while isp-a works"
    assert problems == []


def asked_of(facts: Facts, intent: str) -> list[Question]:
    prepared = prepare(resolve(CONFIG, Observation(facts)))
    return [question for question in prepared.questions if question.intent == intent]


FORWARDS = (("net/ipv4/ip_forward", "1"),)


def test_a_host_behind_a_lan_is_neither_ours_nor_the_broadcast_address() -> None:
    addresses = [a for a in HOST.addresses if a.dev != "lan0"]
    addresses += [
        Address(4, "lan0", "192.168.1.254", 24),
        Address(4, "lan0", "192.168.1.1", 24),
    ]
    facts = replace(HOST, addresses=tuple(addresses), sysctls=FORWARDS)
    assert {q.flow.src for q in asked_of(facts, "forwarded")} == {"192.168.1.2"}


def test_what_is_not_forwarded_is_not_asked() -> None:
    off = tuple(replace(link, forwards=link.name != "lan0") for link in HOST.links)
    assert asked_of(replace(HOST, sysctls=FORWARDS), "forwarded")
    assert not asked_of(replace(HOST, links=off, sysctls=FORWARDS), "forwarded")
    vrf = (*HOST.links, Link(9, "red", kind="vrf"))
    links = tuple(replace(link, master=9) if link.name == "lan0" else link for link in vrf)
    assert not asked_of(replace(HOST, links=links, sysctls=FORWARDS), "forwarded")


def test_a_link_without_carrier_is_its_own_fault() -> None:
    """Its routes are ignored by ignore_routes_with_linkdown."""
    dead = tuple(replace(k, carrier=False) if k.name == "wan1" else k for k in HOST.links)
    facts = replace(HOST, links=dead)
    prepared = prepare(resolve(CONFIG, Observation(facts)))
    answers = tuple(
        (q, RouteReply("unreachable" if q.dev == "wan1" else "local")) for q in prepared.questions
    )
    assert not any("wan1" in p.what for p in self_check.misrouted(CONFIG, facts, answers))


def test_a_family_that_leaves_by_a_tunnel_is_meant_to() -> None:
    lost = tuple(r for r in HOST.routes if (r.family, r.dst) != (6, "default"))
    tunnel = Route(6, TABLE_MAIN, "default", 1024, hops=(Hop("vpn0"),))
    _, problems = applied(replace(HOST, routes=(*lost, tunnel)))
    assert problems == []


def test_the_copy_of_main_keeps_routes_that_differ_only_in_the_device() -> None:
    last = Route(6, TABLE_MAIN, "default", 4278198272, kind="unreachable")
    twice = tuple(Route(6, TABLE_MAIN, "fe80::/64", 256, hops=(Hop(d),)) for d in ("lan0", "vpn0"))
    prepared = prepare(resolve(CONFIG, Observation(with_(last, *twice))))
    copied = [r for r in prepared.desired.routes if (r.table, r.dst) == (1000, "fe80::/64")]
    assert {hop.dev for route in copied for hop in route.hops} == {"lan0", "vpn0"}

"""The policy rules of [[outgoing.rule]], and where they lead.

wan0  isp-a  203.0.113.10, 2001:db8:a::10       lan0  192.168.1.0/24, fd00:1::/64
wan1  isp-b  198.51.100.10, 2001:db8:b::10
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.config import FAMILIES, Config, Family, OutgoingConfig, OutgoingRule
from ifdefault.model.flow import Flow
from ifdefault.model.health import Decision
from ifdefault.model.kernel import Desired, Facts, Rule
from ifdefault.plan import numbers
from ifdefault.plan.desired import plan
from ifdefault.plan.lookup import Fib
from ifdefault.plan.numbers import OUTGOING
from tests.property.fakekernel import settle
from tests.unit.test_lookup import ARRIVAL_B, CONFIG, FAR, HOST, LAN, OUTGOING_B, UP_A, UP_B, A, B

NUMBERS = numbers.assign([u.name for u in CONFIG.uplinks], {})
TO_FAR = ("192.0.2.0/24", "2001:db8:ffff::/48")
TCP, UDP = 6, 17
NEAR: dict[Family, str] = {4: "203.0.113.50", 6: "2001:db8:a::50"}  # on isp-a's own link


def with_rules(*rules: OutgoingRule) -> Config:
    return replace(CONFIG, outgoing=OutgoingConfig(rules=rules))


def laid(config: Config, facts: Facts = HOST, decision: Decision | None = None) -> Facts:
    return settle(facts, plan(config, facts, NUMBERS, decision).desired)


def ours(facts: Facts, family: Family = 4) -> list[Rule]:
    return [r for r in facts.rules if (r.family, r.priority) == (family, OUTGOING)]


def way(facts: Facts, flow: Flow) -> str:
    hop = Fib.of(facts).lookup(flow).hop
    return hop.dev if hop else ""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("rule", "selected", "spared"),
    [
        (OutgoingRule(("isp-b",), TO_FAR), {}, {"dst": "8.8.8.8"}),
        (OutgoingRule(("isp-b",), transport="udp"), {"ip_proto": UDP}, {"ip_proto": TCP}),
        (
            OutgoingRule(("isp-b",), transport="tcp", ports=((25, 25), (80, 90))),
            {"ip_proto": TCP, "dport": 85},
            {"ip_proto": TCP, "dport": 91},
        ),
        (
            OutgoingRule(("isp-b",), transport="tcp", ports=((25, 25),)),
            {"ip_proto": TCP, "dport": 25},
            {"ip_proto": UDP, "dport": 25},
        ),
        (OutgoingRule(("isp-b",), users=(7, 1000)), {"uid": 1000}, {"uid": 0}),
        (
            OutgoingRule(("isp-b",), TO_FAR, "tcp", ((25, 25),), (7,)),
            {"ip_proto": TCP, "dport": 25, "uid": 7},
            {"ip_proto": TCP, "dport": 25, "uid": 8},
        ),
    ],
)
def test_what_is_selected(
    family: Family, rule: OutgoingRule, selected: dict[str, int], spared: dict[str, int]
) -> None:
    facts = laid(with_rules(rule))
    flow = Flow(family, FAR[family])
    if "dst" in spared:
        spared = {"dst": "8.8.8.8" if family == 4 else "2600::1"}  # type: ignore[dict-item]
    assert way(facts, replace(flow, **selected)) == "wan1"  # type: ignore[arg-type]
    assert way(facts, replace(flow, **spared)) == "wan0"  # type: ignore[arg-type]


def test_a_family_that_is_not_named_is_left_alone() -> None:
    facts = laid(with_rules(OutgoingRule(("isp-b",), TO_FAR[:1])))
    assert way(facts, Flow(4, FAR[4])) == "wan1"
    assert way(facts, Flow(6, FAR[6])) == "wan0"
    assert ours(facts, 6) == ours(laid(CONFIG), 6)


def test_everything_of_one_family() -> None:
    facts = laid(with_rules(OutgoingRule(("isp-b",), ("0.0.0.0/0",))))
    assert [way(facts, Flow(f, FAR[f])) for f in FAMILIES] == ["wan1", "wan0"]
    assert all(rule.dst == "" for rule in ours(facts)), "as the kernel shows it"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_the_rules(family: Family) -> None:
    narrow = OutgoingRule(("isp-a",), transport="tcp", ports=((25, 25),))
    wide = OutgoingRule(("isp-b",), TO_FAR)
    flow = Flow(family, FAR[family], ip_proto=TCP, dport=25)
    assert way(laid(with_rules(narrow, wide)), flow) == "wan0"
    assert way(laid(with_rules(wide, narrow)), flow) == "wan1"


@pytest.mark.parametrize(
    ("via", "usable", "leads"),
    [
        (("isp-b", "isp-a"), ("isp-a", "isp-b"), "wan1"),
        (("isp-b", "isp-a"), ("isp-a",), "wan0"),
        (("isp-b",), ("isp-a",), "wan1"),  # it has no other
        (("isp-a", "isp-b"), (), "wan1"),  # the last, if none is usable
        (("isp-b", "isp-x"), ("isp-a",), "wan1"),
    ],
)
def test_the_first_usable_way(via: tuple[str, ...], usable: tuple[str, ...], leads: str) -> None:
    names = ("isp-a", "isp-b")
    decision = Decision(tuple((f, names) for f in FAMILIES), tuple((f, usable) for f in FAMILIES))
    facts = laid(with_rules(OutgoingRule(via, TO_FAR)), decision=decision)
    assert [way(facts, Flow(f, FAR[f])) for f in FAMILIES] == [leads, leads]


def test_a_standby_is_used_where_a_rule_names_it() -> None:
    config = with_rules(OutgoingRule(("isp-b", "isp-a"), TO_FAR))
    decision = Decision(((4, ("isp-a", "isp-b")),), ((4, ("isp-a",)),), reserve=((4, ("isp-b",)),))
    facts = laid(config, decision=decision)
    assert way(facts, Flow(4, FAR[4])) == "wan1"
    assert way(facts, Flow(4, "8.8.8.8")) == "wan0"
    alone = replace(config, uplinks=(replace(UP_A, metered=True), UP_B))
    assert way(laid(alone), Flow(4, "8.8.8.8")) == "wan1", "a plan without a daemon knows the price"


def test_an_uplink_without_the_family_is_passed_over() -> None:
    no_6 = replace(
        HOST,
        addresses=tuple(a for a in HOST.addresses if a.dev != "wan1" or a.family == 4),
        routes=tuple(
            r for r in HOST.routes if r.family == 4 or all(h.dev != "wan1" for h in r.hops)
        ),
    )
    config = with_rules(OutgoingRule(("isp-b",), transport="tcp"))
    facts = laid(config, no_6)
    flow = Flow(6, FAR[6], ip_proto=TCP)
    assert way(facts, flow) == "wan0"
    assert way(facts, replace(flow, family=4, dst=FAR[4])) == "wan1"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_wins_over_a_rule(family: Family) -> None:
    """The LAN, replies, and packets with an uplink's mark."""
    everything = ("0.0.0.0/0", "2000::/3", "fd00::/8")
    facts = laid(with_rules(OutgoingRule(("isp-b",), everything)))
    assert way(facts, Flow(family, FAR[family])) == "wan1"
    assert way(facts, Flow(family, LAN[family])) == "lan0"
    assert way(facts, Flow(family, FAR[family], A[family])) == "wan0"
    assert way(facts, Flow(family, FAR[family], B[family])) == "wan1"
    assert way(facts, Flow(family, FAR[family], oif="wan0")) == "wan0"
    other = laid(with_rules(OutgoingRule(("isp-a",), everything)))
    assert way(other, Flow(family, FAR[family], mark=OUTGOING_B)) == "wan1"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_wins_over_an_uplinks_own_link(family: Family) -> None:
    near = f"{NEAR[family]}/{32 if family == 4 else 128}"
    assert way(laid(CONFIG), Flow(family, NEAR[family])) == "wan0"
    assert way(laid(with_rules(OutgoingRule(("isp-b",), (near,)))), Flow(family, NEAR[family])) == (
        "wan1"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_users_are_those_of_the_host(family: Family) -> None:
    """For the kernel, forwarded packets are of user 0."""
    facts = laid(with_rules(OutgoingRule(("isp-b",), users=(0,))))
    flow = Flow(family, FAR[family])
    assert way(facts, flow) == "wan1"
    assert way(facts, replace(flow, iif="lan0", src=LAN[family])) == "wan0"
    lan = laid(with_rules(OutgoingRule(("isp-b",), TO_FAR)))
    assert way(lan, replace(flow, iif="lan0", src=LAN[family])) == "wan1"


def test_cgroups_have_no_policy_rule() -> None:
    rule = OutgoingRule(("isp-b",), cgroups=("/backup",))
    assert ours(laid(with_rules(rule))) == ours(laid(CONFIG))


@pytest.mark.parametrize("family", FAMILIES)
def test_wildcard_udp_servers_reply_as_before(family: Family) -> None:
    """Their replies have no source when they are routed, and may match the port of a rule."""
    naive = replace(HOST, wildcard_udp=((4, 53), (6, 53)))
    facts = laid(with_rules(OutgoingRule(("isp-b",), transport="udp")), naive)
    answer = Flow(family, FAR[family], ip_proto=UDP, sport=53, dport=4000)
    assert way(facts, answer) == "wan0"
    assert way(facts, replace(answer, sport=54)) == "wan1"
    assert way(facts, replace(answer, src=A[family], mark=ARRIVAL_B)) == "wan1"


def test_no_deletion_hits_another_rule() -> None:
    """The kernel deletes the first rule that has all that is named (fakekernel refuses if that is
    not the one that is meant)."""
    every = tuple(
        OutgoingRule(("isp-b",), to, transport, ports if transport else (), users)
        for to in ((), TO_FAR)
        for transport in ("tcp", None)
        for ports in (((25, 25),), ())
        for users in ((7,), ())
        if to or transport or users
    )  # narrow ones first
    facts = laid(with_rules(*every))
    assert len(ours(facts)) == len(set(ours(facts)))
    masks = {rule.mask for rule in ours(facts)}
    assert len(masks) == 11 + 2, "one for each kind of selectors, the default's, and none"
    for config in (CONFIG, with_rules(*every[::-1]), replace(CONFIG, uplinks=(UP_A, UP_B))):
        again = laid(config, facts)
        assert ours(again) == ours(laid(config))
    assert not ours(settle(facts, Desired()))

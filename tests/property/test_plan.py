"""Invariants of every plan, on every host: see tests/property/hosts.py.

Rules: the kernel here is tests/property/fakekernel.py, which performs one operation at a time.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES
from ifdefault.model.flow import Flow
from ifdefault.model.host import Observation
from ifdefault.model.kernel import NFT_TABLE, PROTOCOL, Facts, Operation, Rule
from ifdefault.plan import numbers, prefixes
from ifdefault.plan.desired import Plan
from ifdefault.plan.diff import own_rules, record_tables
from ifdefault.plan.lookup import Fib
from ifdefault.plan.prepare import snapshot
from tests.property import hosts
from tests.property.fakekernel import operations, planned, settle, steps
from tests.property.hosts import Scene

T = TypeVar("T")
Way = tuple[str, str]  # device, gateway


def last_before_main(rules: tuple[Rule, ...]) -> list[Rule]:
    """Those where order matters: other rules of one priority are mutually exclusive."""
    return [rule for rule in rules if rule.priority == numbers.OUTGOING]


each_scene = given(hosts.scenes())


def numbers_of(plan: Plan) -> dict[str, int]:
    return {uplink.name: uplink.number for uplink in plan.uplinks}


def marks_table(plan: Plan) -> str:
    return dict(plan.desired.tables).get(NFT_TABLE, "")


def changed(scene: Scene) -> tuple[Plan, Facts, Plan, tuple[Operation, ...]]:
    """The first plan, the host after it and after later changes, and the next change."""
    first = planned(scene.config, scene.facts)
    settled = settle(scene.facts, first.desired)
    strangers = tuple(rule for rule in scene.later.rules if rule.protocol != PROTOCOL)
    rules = sorted((*strangers, *own_rules(settled)), key=lambda r: (r.family, r.priority))
    since = tuple(route for route in scene.later.routes if route not in settled.routes)
    now = replace(settled, routes=settled.routes + since, rules=tuple(rules))
    second = planned(scene.edited, now, numbers_of(first))
    return first, now, second, operations(now, second.desired)


@each_scene
def test_reaches_what_is_desired(scene: Scene) -> None:
    first, now, second, _ = changed(scene)
    for plan, before in ((first, scene.facts), (second, now)):
        after = settle(before, plan.desired)
        assert operations(after, plan.desired) == ()
        assert sorted(own_rules(after)) == sorted(plan.desired.rules)
        assert planned(scene.edited if plan is second else scene.config, after,
                       numbers_of(first)).desired == plan.desired  # fmt: skip


@each_scene
def test_outgoing_rules_keep_their_order(scene: Scene) -> None:
    """The only case where the order of rules of one priority matters."""
    _, now, second, _ = changed(scene)
    after = settle(now, second.desired)

    def ours(rules: tuple[Rule, ...]) -> list[Rule]:
        return [rule for rule in last_before_main(rules) if rule.protocol == PROTOCOL]

    assert ours(after.rules) == ours(second.desired.rules)


@each_scene
def test_inverse_restores(scene: Scene) -> None:
    """Return to an earlier state of ours, and to the original state."""
    first, now, _, todo = changed(scene)
    *_, after = steps(now, todo)
    for before, target in (
        (now, snapshot(Observation(now, loaded=record_tables(now, first.desired)))),
        (scene.later, snapshot(Observation(scene.facts))),
    ):
        restored = settle(after, target)
        assert sorted(restored.rules) == sorted(before.rules)
        assert last_before_main(restored.rules) == last_before_main(before.rules)
        assert sorted(restored.routes) == sorted(before.routes)
        assert dict(restored.sysctls) == dict(before.sysctls)
        assert restored.links == before.links
        assert restored.tables == before.tables


@each_scene
def test_foreign_survives(scene: Scene) -> None:
    _, now, _, todo = changed(scene)
    for facts in steps(now, todo):
        assert [r for r in facts.rules if r.protocol != PROTOCOL] == [
            r for r in now.rules if r.protocol != PROTOCOL
        ]
        assert {r for r in facts.routes if r.protocol != PROTOCOL} == {
            r for r in now.routes if r.protocol != PROTOCOL
        }
    groups = {link.name for link in facts.links if link.group}
    assert groups <= {u.interface for u in scene.config.uplinks}


@given(hosts.scenes(), st.randoms(use_true_random=False))
def test_input_order_does_not_matter(scene: Scene, rng: random.Random) -> None:
    """Except for wildcard sockets, whose source depends on the kernel's order of addresses."""
    facts = replace(scene.facts, wildcard_udp=())

    def mixed(values: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(rng.sample(values, len(values)))

    other = replace(
        facts,
        links=mixed(facts.links),
        addresses=mixed(facts.addresses),
        routes=mixed(facts.routes),
        neighbours=mixed(facts.neighbours),
    )
    assert planned(scene.config, other) == planned(scene.config, facts)


# --- every step in between ----------------------------------------------------------------


def ways_of_replies(plan: Plan) -> dict[Flow, Way]:
    """The interface and gateway of replies from each address of an uplink to a remote client."""
    owners: dict[str, int] = {}
    usable = [uplink for uplink in plan.uplinks if not uplink.pending]
    for uplink in usable:
        for address in uplink.addresses:
            owners[address.address] = owners.get(address.address, 0) + 1
    found: dict[Flow, Way] = {}
    for uplink in usable:
        for address in uplink.addresses:
            gateway = uplink.gateway(address.family)
            if gateway is None:
                continue
            family = address.family
            flow = Flow(family, hosts.FAR[family], address.address)
            if uplink.mechanism != "source":
                found[replace(flow, mark=uplink.arrival_mark)] = uplink.interface, gateway
            if f"chain save_arrival_{uplink.number} " in marks_table(plan):
                behind = Flow(family, hosts.FAR[family], hosts.LAN[family], "lan0")
                found[replace(behind, mark=uplink.arrival_mark)] = uplink.interface, gateway
            if owners[address.address] == 1:
                found[flow] = uplink.interface, gateway
        for prefix in uplink.routed:
            family = family_of(prefix)
            if (gateway := uplink.gateway(family)) is not None:
                inside = prefixes.text(family, prefixes.network(prefix)[0] + 1)
                flow = Flow(family, hosts.FAR[family], inside, "lan0")
                found[flow] = uplink.interface, gateway
    return found


def private_ways(facts: Facts) -> dict[Flow, Way]:
    """Where packets to the LAN and to a VPN's own networks go, whatever their source."""
    found: dict[Flow, Way] = {}
    for family in FAMILIES:
        sources = [a.address for a in facts.addresses if a.family == family]
        gateway = "192.168.1.9" if family == 4 else "fd00:1::9"
        for source in ("", *sources):
            found[Flow(family, hosts.LAN[family], source)] = "lan0", ""
            found[Flow(family, hosts.BEHIND_LAN[family], source)] = "lan0", gateway
            if any(rule.table == 52 for rule in facts.rules):
                found[Flow(family, hosts.BEHIND_VPN[family], source)] = "vpn0", ""
    return found


def way(fib: Fib, flow: Flow) -> Way | None:
    hop = fib.lookup(flow).hop
    return (hop.dev, hop.gateway) if hop else None


def assert_never_worse(states: list[Facts], ways: dict[Flow, Way]) -> None:
    """Correctly routed packets stay correctly routed at every step, and finally all are."""
    fibs = [Fib.of(facts) for facts in states]
    for flow, right in ways.items():
        rights = [way(fib, flow) == right for fib in fibs]
        assert rights[-1], (flow, right)
        assert rights == sorted(rights), (flow, right, rights.index(True))


def assert_nothing_third(states: list[Facts], plan: Plan) -> None:
    """Outgoing packets, marked for an uplink or not, selected by a rule or not, are routed as
    before or as after."""
    fibs = [Fib.of(facts) for facts in states]
    marks = (0, *(uplink.outgoing_mark for uplink in plan.uplinks))
    kinds = ((0, 0, 0), (6, 25, 0), (17, 8000, 1000))  # protocol, port, user
    for family, mark, (ip_proto, port, uid) in itertools.product(FAMILIES, marks, kinds):
        flow = Flow(family, hosts.FAR[family], mark=mark, ip_proto=ip_proto, dport=port, uid=uid)
        ways = [way(fib, flow) for fib in fibs]
        assert set(ways) <= {ways[0], ways[-1]}, (flow, ways)


@settings(max_examples=60)
@each_scene
def test_first_apply_opens_no_gap(scene: Scene) -> None:
    plan = planned(scene.config, scene.facts)
    states = list(steps(scene.facts, operations(scene.facts, plan.desired)))
    assert_never_worse(states, ways_of_replies(plan) | private_ways(scene.facts))
    assert_nothing_third(states, plan)


@settings(max_examples=60)
@each_scene
def test_change_opens_no_gap(scene: Scene) -> None:
    first, now, second, todo = changed(scene)
    after = ways_of_replies(second)
    same = {f: w for f, w in ways_of_replies(first).items() if after.get(f) == w}
    states = list(steps(now, todo))
    assert_never_worse(states, same | private_ways(now))
    assert_nothing_third(states, second)


@settings(max_examples=60)
@each_scene
def test_down_keeps_the_host_reachable(scene: Scene) -> None:
    """Routes to the LAN stay, and a family with a default keeps one."""
    settled = settle(scene.facts, planned(scene.config, scene.facts).desired)
    states = list(steps(settled, operations(settled, snapshot(Observation(scene.facts)))))
    assert_never_worse(states, private_ways(scene.facts))
    for family in FAMILIES:
        flow = Flow(family, hosts.FAR[family])
        if way(Fib.of(scene.facts), flow):
            assert all(way(Fib.of(facts), flow) for facts in states)


# --- what is written ----------------------------------------------------------------------


@each_scene
def test_marks_stay_inside_the_mask(scene: Scene) -> None:
    plan = planned(scene.config, scene.facts)
    mask = scene.config.host.mark_mask
    assert all(rule.mask in (0, mask) or not rule.mark for rule in plan.desired.rules)
    assert all(rule.mark & ~mask == 0 for rule in plan.desired.rules)
    for line in marks_table(plan).splitlines():
        if "mark set" in line:
            kept, bits = line.split("& ")[1].split(" ")[0:3:2]
            assert int(kept, 16) == ~mask & 0xFFFFFFFF
            assert int(bits, 16) & ~mask == 0

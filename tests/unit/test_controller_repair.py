"""Differences are repaired, at a limited rate; a new decision is applied at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.reconcile import BACKSTOP_S, RETRY_LONGEST_S
from ifdefault.daemon.controller.repair_backoff import ROUNDS
from ifdefault.model.config import OutgoingConfig, OutgoingRule
from ifdefault.model.kernel import PROTOCOL, AddRule, Neighbour, Operation, PutHook, Rule
from ifdefault.model.kernel_events import NeighbourChanged, ObjectChanged
from tests.unit.controlled import ADDRESSES, CONFIG, UPLINKS, Host, facts, kinds

GROUP = "/g"


@pytest.fixture
def host() -> Host:
    return Host().start()


def ours(host: Host) -> list[Rule]:
    return [rule for rule in host.facts.rules if rule.protocol == PROTOCOL]


def delete(host: Host, rule: Rule | None = None) -> None:
    """Another program deletes a rule of ours, and the kernel sends a notification."""
    gone = rule or ours(host)[0]
    host.facts = replace(host.facts, rules=tuple(r for r in host.facts.rules if r != gone))
    host.change()


# --- repairs, and their pace --------------------------------------------------------------


def test_what_others_undo_is_repaired_and_logged(host: Host) -> None:
    before = host.facts.rules
    delete(host)
    assert host.every(f.Look) == [], "kernel events come in groups"
    host.run(0.1)
    assert set(host.facts.rules) == set(before)
    assert (len(host.every(f.Look)), len(host.every(f.Converge))) == (1, 1)
    [told] = host.logged("repair")
    assert told.startswith("repaired: ip rule add ")
    assert host.every(f.EndConnections) == []


def test_many_news_at_once_are_one_look(host: Host) -> None:
    for _ in range(5):
        delete(host)
        host.run(0.001)
    host.run(0.2)
    assert (len(host.every(f.Look)), len(host.every(f.Converge))) == (1, 1)
    [told] = host.logged("repair")
    assert told.endswith(" and 2 more")


def test_a_conflict_is_logged_and_repaired_less_and_less_often(host: Host) -> None:
    rule = ours(host)[0]
    for _ in range(400):
        delete(host, rule)
        host.run(0.25)
    repairs = len(host.every(f.Converge))
    assert ROUNDS < repairs < 20
    told = [text for text in host.logged("repair") if "keeps undoing" in text]
    assert told
    assert host.controller.status(host.now).conflicts


def test_a_new_decision_does_not_wait_for_a_conflict(host: Host) -> None:
    rule = ours(host)[0]
    for _ in range(40):
        delete(host, rule)
        host.run(0.25)
    assert rule not in host.facts.rules, "it is held back from"
    host.receive(e.UplinkRequested(7, "isp-a", "drain"))
    assert host.leaves_by() == "wan1"
    assert rule in host.facts.rules


def test_news_that_never_end_leave_time_for_all_else(host: Host) -> None:
    for _ in range(1000):
        host.change(ObjectChanged("route"))
        host.run(0.001)
    assert 30 < len(host.every(f.Look)) < 70, "a look takes 4 ms, and may take a quarter"


def test_without_news_it_looks_from_time_to_time(host: Host) -> None:
    gone = ours(host)[0]
    host.facts = replace(host.facts, rules=tuple(r for r in host.facts.rules if r != gone))
    host.run(BACKSTOP_S)
    assert gone in host.facts.rules


def test_what_changed_silently_is_looked_at(host: Host) -> None:
    host.receive(e.SilentlyChanged())
    assert len(host.every(f.Look)) == 1
    assert host.every(f.Converge) == []


def test_a_neighbour_matters_only_if_it_has_a_mac(host: Host) -> None:
    host.change(NeighbourChanged("wan0", "203.0.113.1", None))
    host.run(1.0)
    assert host.every(f.Look) == []
    host.change(NeighbourChanged("wan0", "203.0.113.1", True, "02:00:00:00:00:01"))
    host.run(1.0)
    assert len(host.every(f.Look)) == 1


def test_another_address_is_followed(host: Host) -> None:
    """Probes, rules and names use the new address."""
    renumbered = facts()
    old, new = ADDRESSES["wan0"][0], "203.0.113.77"
    changed = tuple(replace(a, address=new) if a.address == old else a for a in facts().addresses)
    rules = (*renumbered.rules, *ours(host))
    host.facts = replace(renumbered, addresses=changed, rules=rules)
    host.change(ObjectChanged("address"))
    host.run(1.0)
    assert {s.source.address for s in host.every(f.OpenProbeSocket)} == {new}
    assert new in host.names()
    assert old not in host.names()
    assert any(rule.src == f"{new}/32" or rule.src == new for rule in ours(host))


# --- what can't be done -------------------------------------------------------------------


def test_a_locked_host_is_looked_at_again(host: Host) -> None:
    rule = ours(host)[0]
    host.locked = 4
    delete(host)
    host.run(1.0)
    assert rule in host.facts.rules
    assert len(host.every(f.Look)) == 4
    assert "refused" not in " ".join(host.logged()), "nothing was refused"


def test_a_refused_operation_is_retried_and_logged_once(host: Host) -> None:
    def refuses(operation: Operation) -> bool:
        return isinstance(operation, AddRule)

    host.refuses = refuses
    rule = ours(host)[0]
    delete(host, rule)
    host.run(60.0)
    refused = "the kernel refused: AddRule: operation not permitted"
    assert host.logged("repair").count(refused) == 1
    assert "AddRule: operation not permitted" in host.controller.status(host.now).problems
    tries = len(host.every(f.Converge))
    assert 60.0 / RETRY_LONGEST_S < tries < 20, "ever later"
    host.refuses = lambda _: False
    host.run(RETRY_LONGEST_S)
    assert rule in host.facts.rules
    assert host.controller.status(host.now).problems == ()


def test_what_the_kernel_takes_of_a_decision_is_done(host: Host) -> None:
    host.refuses = lambda each: isinstance(each, AddRule) and each.rule.family == 6
    host.black_hole("wan0")
    host.run(2.0)
    assert host.leaves_by(4) == "wan1"
    assert host.logged("repair")[0] == "the kernel refused: AddRule: operation not permitted"
    host.refuses = lambda _: False
    host.run(RETRY_LONGEST_S)
    assert host.leaves_by(6) == "wan1"


def test_uplinks_that_cannot_be_distinguished_for_now_stay_as_they_are() -> None:
    shared = replace(UPLINKS[0], addresses=("203.0.113.10",), gateways=("203.0.113.1",))
    uplinks = (shared, replace(shared, name="isp-c", gateways=("203.0.113.2",)), UPLINKS[1])
    known = tuple(Neighbour(4, "wan0", f"203.0.113.{n}", f"02::{n}", router=True) for n in (1, 2))
    host = Host(replace(facts(), neighbours=known), replace(CONFIG, uplinks=uplinks)).start()
    before = host.facts.rules
    host.facts = replace(host.facts, neighbours=known[:1])
    host.change(ObjectChanged("address"))
    host.run(60.0)
    told = "203.0.113.10 is isp-a's too, and its router's MAC is unknown"
    assert len([text for text in host.logged("repair") if told in text]) == 1
    assert host.facts.rules == before
    assert 60.0 / RETRY_LONGEST_S < len(host.every(f.Look)) < 20, "ever later"
    host.facts = replace(host.facts, neighbours=known)
    host.run(RETRY_LONGEST_S)
    assert host.controller.status(host.now).problems == ()
    host.receive(e.UplinkRequested(7, "isp-a", "down"))
    assert host.every(f.Converge)


# --- control groups -----------------------------------------------------------------------


def grouped(there: int) -> Host:
    rule = OutgoingRule(via=("isp-b",), cgroups=(GROUP,))
    host = Host(config=replace(CONFIG, outgoing=OutgoingConfig(rules=(rule,))))
    host.groups[GROUP] = there
    return host.start()


def watched(host: Host) -> tuple[tuple[str, int], ...]:
    """The groups that the engine compares with the existing ones."""
    return host.every(f.Watch)[-1].groups


def test_a_group_that_comes_is_no_repair() -> None:
    host = grouped(there=0)
    host.groups[GROUP] = 7
    host.facts = replace(host.facts, hook=None)  # it isn't in the new one
    host.receive(e.SilentlyChanged(groups=True))
    assert any(isinstance(each, PutHook) for each in host.every(f.Converge)[0].prepared.operations)
    assert host.logged("repair") == []
    host.run(5.0)
    assert len(host.every(f.Converge)) == 1


def test_a_hook_removed_by_others_is_a_repair() -> None:
    host = grouped(there=7)
    host.facts = replace(host.facts, hook=None)
    host.receive(e.SilentlyChanged())
    assert host.logged("repair")


def test_a_group_that_comes_while_the_kernel_is_looked_at_is_seen_next() -> None:
    """What is monitored is compared with what was observed, not with what is there since."""
    host = Host(config=grouped(there=0).config)
    host.groups[GROUP] = 0
    host.receive(e.Started(host.config))
    assert watched(host) == ((GROUP, 0),)
    host.groups[GROUP] = 7  # after the groups were read
    assert not host.controller.state.refused
    host.receive(e.SilentlyChanged(groups=True))
    host.run(0.1)
    assert watched(host) == ((GROUP, 7),)
    host.forget()
    host.receive(e.SilentlyChanged())
    host.run(0.1)
    assert host.every(f.Look)
    assert f.Watch not in kinds(host.done)

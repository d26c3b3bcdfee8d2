"""Cases of the diff that random hosts rarely produce."""

from __future__ import annotations

from dataclasses import replace

from ifdefault.model.kernel import PROTOCOL, DeleteRule, Desired, Hop, Link, Route, Rule, SetGroup
from tests.property.fakekernel import operations, planned, settle
from tests.unit.test_lookup import CONFIG, HOST


def test_rule_that_stands_twice_is_deleted_once() -> None:
    """The state after a crash in the middle of a move."""
    desired = planned(CONFIG, HOST).desired
    settled = settle(HOST, desired)
    for place, rule in enumerate(settled.rules):
        if rule.protocol == PROTOCOL and rule.priority < 32765:
            twice = (*settled.rules[:place], rule, *settled.rules[place:])
            facts = replace(settled, rules=twice)
            assert operations(facts, desired) == (DeleteRule(rule),)
            gone = operations(facts, Desired())
            assert gone.count(DeleteRule(rule)) == 2


def test_links_own_group_comes_back_last() -> None:
    """Uplinks must stay in the group until the rules that use it are deleted."""
    settled = settle(HOST, planned(CONFIG, HOST).desired)
    back = operations(settled, Desired(groups=(("wan0", 5), ("wan1", 0))))
    assert back[-2:] == (SetGroup("wan0", 5, 171), SetGroup("wan1", 0, 171))


def test_outgoing_marks_never_meet_an_old_default() -> None:
    """The first uplink is removed: the second's rule must outlive the old primary's."""
    settled = settle(HOST, planned(CONFIG, HOST).desired)
    fewer = planned(replace(CONFIG, uplinks=CONFIG.uplinks[1:]), settled, {"isp-a": 1, "isp-b": 2})
    dropped = [o.rule for o in operations(settled, fewer.desired) if isinstance(o, DeleteRule)]
    last = [rule for rule in dropped if (rule.family, rule.priority) == (4, 32765)]
    assert [rule.mark for rule in last] == [0, 0, 0x22000000, 0x21000000]


def test_routes_come_in_one_order() -> None:
    site = Route(4, 254, "10.0.0.0/8", hops=(Hop("wan0", "203.0.113.7"),))
    routes = (*HOST.routes, site)
    one, other = (planned(CONFIG, replace(HOST, routes=r)) for r in (routes, routes[::-1]))
    assert one == other


def test_interface_that_is_gone_is_left_alone() -> None:
    desired = Desired(groups=(("gone0", 171),), rules=(Rule(4, 5, suppress_ifgroup=171),))
    assert all(not isinstance(o, SetGroup) for o in operations(HOST, desired))
    here = replace(HOST, links=(*HOST.links, Link(9, "gone0")))
    assert SetGroup("gone0", 171, 0) in operations(here, desired)

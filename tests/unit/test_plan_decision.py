"""The daemon's decision orders the uplinks of a plan, and changes nothing else."""

from __future__ import annotations

from ifdefault.model.config import FAMILIES
from ifdefault.model.health import Decision
from ifdefault.model.kernel import Desired, Facts
from ifdefault.plan import numbers
from ifdefault.plan.desired import plan
from ifdefault.plan.numbers import OUTGOING
from tests.unit.test_lookup import CONFIG, HOST

NAMES = tuple(u.name for u in CONFIG.uplinks)
NUMBERS = numbers.assign(NAMES, {})


def planned(decision: Decision | None, facts: Facts = HOST) -> Desired:
    return plan(CONFIG, facts, NUMBERS, decision).desired


def default(desired: Desired, family: int) -> int:
    """The table of the primary uplink."""
    outgoing = [r for r in desired.rules if (r.family, r.priority) == (family, OUTGOING)]
    return outgoing[-1].table


def test_it_ranks_each_family_alone() -> None:
    decision = Decision(((4, NAMES[::-1]), (6, NAMES)))
    desired = planned(decision)
    assert default(desired, 4) == 1000 + NUMBERS[NAMES[-1]]
    assert default(desired, 6) == 1000 + NUMBERS[NAMES[0]]


def test_only_the_default_moves() -> None:
    """The return path includes uplinks that are down, as connections may still arrive."""
    one = planned(Decision(tuple((f, NAMES) for f in FAMILIES)))
    other = planned(Decision(tuple((f, NAMES[::-1]) for f in FAMILIES)))
    assert one.routes == other.routes
    assert {r for r in one.rules if r.priority != OUTGOING} == {
        r for r in other.rules if r.priority != OUTGOING
    }


def test_an_uplink_that_it_does_not_know_comes_last() -> None:
    desired = planned(Decision(((4, NAMES[1:]),)))
    assert default(desired, 4) == 1000 + NUMBERS[NAMES[1]]


def test_without_one_carrier_and_rank_decide() -> None:
    assert planned(None) == planned(Decision(tuple((f, NAMES) for f in FAMILIES)))

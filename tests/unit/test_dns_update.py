"""Dynamic updates: what is sent to which server, when it is repeated and checked."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest

from ifdefault.dns import update
from ifdefault.dns.update import Change, UpdateState, choose_server, differences, pause_s
from ifdefault.model.dns import Endpoint

A, B, C = "203.0.113.10", "198.51.100.10", "2001:db8:a::10"
OTHER = "192.0.2.99"
ONE, TWO, SIX = Endpoint("192.0.2.53"), Endpoint("192.0.2.54"), Endpoint("2001:db8::53")


@dataclass(frozen=True, order=True)
class Way:
    name: str
    family: int = 4


WAN0, WAN1, WAN0_V6 = Way("wan0"), Way("wan1"), Way("wan0", 6)


def test_only_ours_is_wrong() -> None:
    assert differences({A, OTHER}, {A}, {A}) == set()
    assert differences({OTHER}, {A}, {A}) == {A}
    assert differences({A, B, OTHER}, {A}, {A, B}) == {B}


# --- whom to tell -------------------------------------------------------------------------


def tried(servers: list[Endpoint], ways: list[Way], count: int) -> list[tuple[Endpoint, Way]]:
    failed: dict[tuple[Endpoint, Way], float] = {}
    found = []
    for turn in range(count):
        pair = choose_server(servers, ways, failed)
        assert pair is not None
        found.append(pair)
        failed[pair] = float(turn)
    return found


def test_each_try_is_another_server_by_another_way() -> None:
    assert tried([ONE, TWO], [WAN0, WAN1], 5) == [
        (ONE, WAN0), (TWO, WAN1), (ONE, WAN1), (TWO, WAN0), (ONE, WAN0),
    ]  # fmt: skip


def test_a_way_is_of_the_servers_family() -> None:
    assert tried([SIX, ONE], [WAN0, WAN1, WAN0_V6], 4) == [
        (SIX, WAN0_V6), (ONE, WAN1), (ONE, WAN0), (SIX, WAN0_V6),
    ]  # fmt: skip
    assert choose_server([SIX], [WAN0], {}) is None
    assert choose_server([ONE], [], {}) is None


def test_no_wait_before_each_server_was_tried_and_then_longer_ones() -> None:
    assert [pause_s(failures, 2) for failures in range(1, 5)] == [0, 0.5, 1, 2]
    assert [pause_s(failures, 1) for failures in (7, 8, 9, 10_000)] == [32, 60, 60, 60]


# --- a course -----------------------------------------------------------------------------


def taken(course: UpdateState, now: float) -> Change:
    change = course.change()
    course.accepted(now, change)
    return change


def test_it_is_said_at_once_and_then_looked_at_until_it_fits() -> None:
    course = UpdateState()
    assert course.due_s == inf
    assert course.want(10, [A, B], 30)
    assert (course.due_s, course.look_s) == (10, inf)
    assert taken(course, 10.1) == Change(30, (B, A), (B, A))
    assert course.due_s == inf
    now, waits = 10.1, []
    for _ in range(len(update.LOOKS_S) + 1):
        waits.append(round(course.look_s - now, 3))
        now = course.look_s
        assert not course.observed(now, {A, B, OTHER}, all_fit=False)
    assert waits == [*update.LOOKS_S, 60]
    course.observed(now, {A, B, OTHER}, all_fit=True)
    assert course.look_s == now + update.CALM_S


def test_nothing_new_is_nothing_to_do() -> None:
    course = UpdateState()
    course.want(0, [A], 30)
    assert not course.want(1, [A], 30)
    taken(course, 1)
    assert not course.want(2, [A], 30)
    assert not course.retry(2)
    assert course.want(3, [A], 5)  # the TTL alone
    assert course.change() == Change(5, (A,), (A,))  # or Knot keeps that of before


def test_what_goes_is_ours_until_it_is_gone() -> None:
    course = UpdateState()
    course.want(0, [A, B], 30)
    taken(course, 0)
    course.want(1, [B], 30)
    assert course.ours == {A, B}
    assert taken(course, 1) == Change(30, (B,), (A,))
    assert course.ours == {B}


def test_a_failure_is_tried_again_later_each_time_and_at_once_for_other_ways() -> None:
    course = UpdateState()
    course.want(0, [A], 30)
    for now, due in ((0, 0.5), (1, 2), (2, 4)):
        course.failed(now, 1)
        assert course.due_s == due
    assert course.retry(3)
    assert course.due_s == 3
    course.failed(3, 1)
    assert course.due_s == 3.5


def test_after_a_try_without_an_end_nothing_is_forgotten_for_a_while() -> None:
    """The server may apply it after a later one."""
    course = UpdateState()
    course.want(0, [A, B], 30)
    course.outcome_unknown(0)
    course.want(1, [B], 30)
    taken(course, 1)
    assert course.ours == {A, B}
    assert not course.observed(2, {B}, all_fit=True)
    assert course.look_s < 10  # not calm
    assert course.observed(3, {A, B}, all_fit=False) == {A}
    assert course.due_s == 3
    assert taken(course, 3) == Change(30, (B,), (A,))
    course.observed(update.UNKNOWN_OUTCOME_S + 1, {B}, all_fit=True)
    assert course.ours == {B}


def test_what_is_taken_away_is_put_back_once_a_minute() -> None:
    course = UpdateState()
    course.want(0, [A], 30)
    taken(course, 0)
    assert not course.observed(1, {}, all_fit=False)  # a server's cache
    assert course.observed(2.5, {}, all_fit=False) == {A}
    taken(course, 2.5)
    course.observed(2.7, {A}, all_fit=True)
    assert not course.observed(10, {}, all_fit=False)
    assert course.due_s == inf
    assert course.observed(63, {}, all_fit=False) == {A}
    assert course.due_s == 63


def test_a_name_that_is_gone_is_over_when_its_removal_is_certain() -> None:
    course = UpdateState([A])
    course.want(0, [], 1)
    assert not course.is_done
    assert course.change() == Change(1, (), (A,))
    taken(course, 1)
    assert course.is_done


def test_more_than_one_message_holds() -> None:
    many = [f"192.0.2.{number}" for number in range(100)]
    course = UpdateState(many)
    course.want(0, [A], 1)
    assert len(taken(course, 0).remove) == update.RECORDS_MAX
    assert course.due_s == 0
    assert len(taken(course, 0).remove) == 100 - update.RECORDS_MAX + 1
    assert course.ours == {A}
    assert course.due_s == inf


@pytest.mark.parametrize("seen", [None, {OTHER}])
def test_a_server_that_does_not_say_tells_nothing(seen: set[str] | None) -> None:
    course = UpdateState([B])
    course.want(0, [A], 1)
    course.outcome_unknown(0)
    taken(course, 0)
    back = course.observed(600, seen, all_fit=False)
    assert back == (set() if seen is None else {A})
    assert course.ours == {A, B}

"""The order of uplinks, and which are usable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.health import Candidate, decide
from ifdefault.model.health import Decision

A, B, C = (Candidate(name, 4, state="up") for name in "abc")


def order(*candidates: Candidate) -> str:
    return "".join(decide(candidates).ranking(4))


def usable(*candidates: Candidate) -> str:
    return "".join(decide(candidates).usable_in(4))


@pytest.mark.parametrize(
    ("worse", "found"),
    [
        ({}, "abc"),  # the order of the config
        ({"rank": 1}, "bca"),
        ({"weight": 0}, "bca"),
        ({"carrier": False}, "bca"),
        ({"state": "degraded"}, "bca"),
        ({"state": "unproven"}, "bca"),
        ({"state": "recovering"}, "bca"),
        ({"state": "down"}, "bca"),
        ({"forced": "drain"}, "bca"),
        ({"forced": "down"}, "bca"),
        ({"standby": True}, "bca"),
        ({"standby": True, "forced": "up"}, "abc"),
        ({"state": "down", "forced": "up"}, "abc"),
    ],
)
def test_what_puts_an_uplink_behind_others(worse: dict[str, object], found: str) -> None:
    assert order(replace(A, **worse), B, C) == found  # type: ignore[arg-type]


def test_the_keys_in_their_order() -> None:
    degraded = replace(A, state="degraded", weight=9)
    assert order(degraded, replace(B, rank=1)) == "ab"  # rank before degraded
    assert order(degraded, B) == "ba"  # degraded before weight
    assert order(replace(A, rank=1, weight=9), B) == "ba"


def test_usable() -> None:
    down = replace(A, state="down")
    recovering = replace(B, state="recovering")
    unproven = replace(C, state="unproven")
    assert usable(down, recovering, unproven) == "c"
    assert usable(down, recovering) == "b"
    assert usable(A, replace(B, forced="drain"), replace(C, forced="down")) == "a"
    assert usable(replace(A, state="degraded"), unproven) == "ac"


def test_a_standby_is_used_where_no_other_is() -> None:
    metered = replace(A, standby=True)
    assert usable(metered, replace(B, rank=9), replace(C, state="degraded")) == "cb"
    assert usable(metered, replace(B, state="down"), replace(C, state="recovering")) == "a"
    unknown = replace(B, state="unproven")
    assert usable(metered, unknown) == order(metered, unknown) == "ab"
    assert usable(metered, replace(B, forced="drain")) == "a"
    assert usable(replace(metered, forced="up"), B) == "ab"
    assert usable(metered, replace(B, standby=True)) == "ab"
    # those that are used come first, even if another is in a better state
    up, three = replace(B, rank=2), replace(C, state="unproven")
    assert (usable(metered, up, three), order(metered, up, three)) == ("bc", "bca")


def test_fail_static() -> None:
    fell = {"a": 2.0, "b": 1.0, "c": 3.0}
    a, b, c = (replace(one, state="down", down_since_s=fell[one.uplink]) for one in (A, B, C))
    assert order(a, b, c) == usable(a, b, c) == "cab"  # the one that went down last comes first
    assert order(replace(a, rank=1), b, replace(c, rank=2, carrier=False)) == "cab"
    assert order(*(replace(one, down_since_s=1.0) for one in (replace(a, rank=1), b, c))) == "bca"
    # what the operator took out isn't used even then, unless nothing else is there
    assert usable(a, replace(B, forced="down")) == "a"
    assert usable(b, replace(c, forced="down")) == "b"
    assert usable(b, replace(c, forced="drain")) == "b"
    # but what is drained works, and so is better than what is down
    assert usable(a, replace(B, forced="drain")) == "b"
    assert usable(replace(A, forced="down"), replace(B, forced="down")) == "ab"
    assert usable(replace(a, forced="down"), replace(B, forced="down")) == "ba"


def test_when_a_path_came_up_means_nothing() -> None:
    assert order(replace(A, down_since_s=1.0), replace(B, down_since_s=2.0)) == "ab"


def test_families_are_apart() -> None:
    found = decide([replace(A, state="down"), B, replace(A, family=6), replace(B, family=6)])
    assert found.ranking(4) == ("b", "a")
    assert found.ranking(6) == ("a", "b")
    assert decide([]) == Decision()

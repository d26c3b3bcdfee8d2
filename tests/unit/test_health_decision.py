"""Which uplink comes first, and which may be used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.health import Candidate, decide
from ifdefault.model.health import Decision

A, B, C = (Candidate(name, 4, state="up") for name in "abc")


def order(*candidates: Candidate, last: Decision | None = None) -> str:
    return "".join(decide(candidates, last).ranking(4))


def usable(*candidates: Candidate, last: Decision | None = None) -> str:
    return "".join(decide(candidates, last).usable_in(4))


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


def test_fail_static() -> None:
    down = [replace(c, state="down") for c in (A, B, C)]
    last = Decision(((4, ("c", "a", "b")),), ((4, ("c",)),))
    assert order(*down, last=last) == "cab"
    assert usable(*down, last=last) == "cab"
    assert order(*down) == "abc"
    # what the operator took out isn't used even then, unless nothing else is there
    assert usable(down[0], replace(B, forced="down"), last=last) == "a"
    assert usable(down[0], replace(B, forced="drain", state="down"), last=last) == "a"
    # but what is drained works, and so is better than what is dead
    assert usable(down[0], replace(B, forced="drain"), last=last) == "b"
    assert usable(replace(A, forced="down"), replace(B, forced="down"), last=last) == "ab"


def test_families_are_apart() -> None:
    found = decide([replace(A, state="down"), B, replace(A, family=6), replace(B, family=6)], None)
    assert found.ranking(4) == ("b", "a")
    assert found.ranking(6) == ("a", "b")
    assert decide([], None) == Decision()

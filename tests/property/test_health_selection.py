"""Invariants of the decision, for any candidates."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.health import Candidate, decide
from ifdefault.model.config import FAMILIES
from ifdefault.model.health import Forced, PathState

candidate = st.builds(
    Candidate,
    st.sampled_from("abcdefgh"),
    st.sampled_from(FAMILIES),
    st.integers(0, 2),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(get_args(PathState)),
    st.sampled_from(get_args(Forced)),
    st.integers(0, 9).map(float),
)
candidates = st.lists(candidate, max_size=10, unique_by=lambda c: (c.uplink, c.family))
GOOD = ("up", "degraded")


@given(candidates)
def test_sound(now: list[Candidate]) -> None:
    found = decide(now)
    for family in FAMILIES:
        mine = {c.uplink: c for c in now if c.family == family}
        order, usable = found.ranking(family), found.usable_in(family)
        assert sorted(order) == sorted(mine)
        assert usable == order[: len(usable)]
        assert bool(usable) == bool(mine)
        taken_out = {name for name, c in mine.items() if c.forced == "down"}
        drained = {name for name, c in mine.items() if c.forced == "drain"}
        assert taken_out | drained == set(mine) or not taken_out & set(usable)
        working = {name for name, c in mine.items() if c.state != "down" or c.forced == "up"}
        assert not drained & set(usable) or not working - drained - taken_out
        assert all(name in usable for name, c in mine.items() if c.forced == "up")
        observed = {name: c.state for name, c in mine.items() if c.forced == "auto"}
        assert all(name in usable for name, state in observed.items() if state in GOOD)
        if any(state in GOOD for state in observed.values()):
            assert observed.get(order[0], "up") in GOOD
            assert "down" not in [observed.get(name) for name in usable]


@given(candidates, st.randoms())
def test_the_candidates_alone_decide(now: list[Candidate], random: Random) -> None:
    """With different ranks, neither their order nor candidates of the other family matter."""
    ranked = [replace(c, rank=n) for n, c in enumerate(now)]
    found = decide(ranked)
    for family in FAMILIES:
        shuffled = [c for c in ranked if c.family == family]
        random.shuffle(shuffled)
        alone = decide(shuffled)
        assert alone.ranking(family) == found.ranking(family)
        assert alone.usable_in(family) == found.usable_in(family)


@given(candidates, st.randoms())
def test_the_default_stays_with_the_uplink_that_died_last(
    before: list[Candidate], random: Random
) -> None:
    now = {(c.uplink, c.family): replace(c, forced="auto", state="up") for c in before}
    deaths = [*now]
    random.shuffle(deaths)
    for at, key in enumerate(deaths):
        family = key[1]
        was = decide([*now.values()])
        now[key] = replace(now[key], state="down", carrier=False, down_since_s=at + 10.0)
        found = decide([*now.values()])
        if all(c.state == "down" for c in now.values() if c.family == family):
            assert was.ranking(family)[0] == found.ranking(family)[0] == key[0]

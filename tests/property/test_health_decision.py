"""Whatever the candidates are: what must hold of the decision."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.health import Candidate, decide
from ifdefault.model.config import FAMILIES
from ifdefault.model.health import Decision, Forced, PathState

candidate = st.builds(
    Candidate,
    st.sampled_from("abcdefgh"),
    st.sampled_from(FAMILIES),
    st.integers(0, 2),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(get_args(PathState)),
    st.sampled_from(get_args(Forced)),
)
candidates = st.lists(candidate, max_size=10, unique_by=lambda c: (c.uplink, c.family))
GOOD = ("up", "degraded")


@given(candidates, candidates)
def test_sound(now: list[Candidate], before: list[Candidate]) -> None:
    found = decide(now, decide(before, None))
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


@given(candidates, candidates, candidates)
def test_no_history(now: list[Candidate], one: list[Candidate], other: list[Candidate]) -> None:
    """The same candidates give the same decision, whatever came before, unless all are dead."""
    found = decide(now, decide(one, None))
    again = decide(now, decide(other, None))
    for family in FAMILIES:
        if any(c.place < 4 for c in now if c.family == family):
            assert found.ranking(family) == again.ranking(family)
        assert set(found.usable_in(family)) == set(again.usable_in(family))


@given(candidates)
def test_all_dead_changes_nothing(before: list[Candidate]) -> None:
    before = [replace(c, forced="auto") for c in before]
    last = decide(before, None)
    found = decide([replace(c, state="down") for c in before], last)
    assert found.order == last.order
    assert isinstance(found, Decision)

"""Invariants of consecutive plans: see tests/property/hosts.py."""

from __future__ import annotations

from hypothesis import given

from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Loaded
from ifdefault.plan.diff import record_tables
from ifdefault.plan.originals import settled
from ifdefault.plan.prepare import prepare, resolve
from tests.property import hosts
from tests.property.fakekernel import steps
from tests.property.hosts import Scene


@given(hosts.scenes())
def test_a_second_plan_finds_nothing_to_do(scene: Scene) -> None:
    """For any previous state: a second plan after the first is empty."""
    facts, state = scene.facts, State()
    loaded: Loaded = ()
    for config in (scene.config, scene.edited, scene.config):
        prepared = prepare(resolve(config, Observation(facts, state, loaded)))
        *_, facts = steps(facts, prepared.operations)
        loaded = record_tables(facts, prepared.desired)
        state = settled(prepared.state, facts)
        assert prepare(resolve(config, Observation(facts, state, loaded))).operations == ()

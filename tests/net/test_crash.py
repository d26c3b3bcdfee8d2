"""kill -9 in the middle: at every step, `down` still leaves no trace, and `apply` still completes.

client ── core ─┬─ isp-a ── wan0 ┬─ host       (shared-address: both behind one wan0)
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import NoReturn

import pytest

from ifdefault.config import read as read_config
from ifdefault.host.store import Store
from ifdefault.host.transaction import commit, prepare, prepare_config, prepare_down
from ifdefault.lab.world import World
from ifdefault.model.config import Config
from ifdefault.model.host import State
from ifdefault.model.kernel import Operation
from ifdefault.plan.prepare import Prepared
from tests.net.conftest import LabWorld
from tests.net.kernelstate import apply, differences, down, operations_left, read_state, store_of

Prepare = Callable[[Store], Prepared]

pytestmark = pytest.mark.parametrize("topology", ["two", "shared-address"])


class DeadlyStore(Store):
    """Kills its process instead of saving for the second time: all is done but written down."""

    saves = 0

    def save(self, state: State) -> None:
        self.saves += 1
        if self.saves == 2:
            _die()
        super().save(state)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def commit_and_die(world: World, prepare: Prepare, step: int) -> None:
    """Be killed before the operation of that number, or after the last before it is written down.

    A fork is a process of its own without the second that imports take.
    """
    with world["host"].enter():
        child = os.fork()
        if not child:
            try:
                _commit_until(prepare, DeadlyStore(store_of(world).directory), step)
            finally:
                os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _commit_until(prepare: Prepare, store: Store, step: int) -> None:
    steps = count()

    def before(_: Operation) -> None:
        if next(steps) == step:
            _die()

    with store.lock():
        commit(prepare(store), store, before)


def other_config(world: World) -> Config:
    """Everything moves: numbers, marks, tables, priorities, the group."""
    text = world.config.read_text()
    text += "\n[host]\nmark_mask = 0x3f0000\ntable_base = 2000\nrule_priority = 4000\n"
    text += "interface_group = 172\n"
    path = world.dir / "other.toml"
    path.write_text(text)
    return read_config(path)


def test_killed_in_mid_apply(lab_world: LabWorld, topology: str) -> None:
    world = lab_world(topology)
    before = read_state(world["host"])
    steps = len(operations_left(world))
    assert steps > 30
    for step in range(steps + 1):
        commit_and_die(world, lambda store: prepare(world.config, store), step)
        down(world)
        assert differences(before, read_state(world["host"])) == [], f"killed before step {step}"


def test_apply_again_completes(lab_world: LabWorld, topology: str) -> None:
    world = lab_world(topology)
    apply(world)
    complete = read_state(world["host"])
    down(world)
    for step in range(0, len(operations_left(world)) + 1, 5):
        commit_and_die(world, lambda store: prepare(world.config, store), step)
        apply(world)
        assert operations_left(world) == ()
        assert differences(complete, read_state(world["host"])) == [], f"killed before step {step}"
        down(world)


def test_killed_in_mid_change(lab_world: LabWorld, topology: str) -> None:
    """From one config to another: back to the first, on to the second, and down."""
    world = lab_world(topology)
    before = read_state(world["host"])
    other = other_config(world)
    apply(world)
    steps = len(operations_left(world, other))
    for step in range(0, steps + 1, 6):
        commit_and_die(world, lambda store: prepare_config(other, store), step)
        wanted = (None, other)[step // 6 % 2]
        apply(world, wanted)
        assert operations_left(world, wanted) == ()
        commit_and_die(world, lambda store: prepare_config(other, store), step)
        down(world)
        assert differences(before, read_state(world["host"])) == [], f"killed before step {step}"
        apply(world)


def test_killed_in_mid_down(lab_world: LabWorld, topology: str) -> None:
    world = lab_world(topology)
    before = read_state(world["host"])
    apply(world)
    for step in range(0, len(operations_left(world, other_config(world))) // 2, 4):
        commit_and_die(world, prepare_down, step)
        down(world)
        assert differences(before, read_state(world["host"])) == [], f"killed before step {step}"
        apply(world)

"""A failover is one look at the kernel, one plan, one publication and one change of the kernel.

                ┌─ isp-a ── wan0 ┐   its IPv4, or its IPv6, dies
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from ifdefault.ipc.control.client import NotRunning
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers, counted, watched
from tests.net.conftest import LabWorld
from tests.net.watched import await_states, leaves_by

CONFIG = """\
[health]
recover_s = 0.3
[[dns.name]]
name = "www.example.org"
[dns.server]
zones = ["www.example.org"]
"""
TURN = ["Look", counted.PLAN, "Publish", "Converge", "EndConnections"]
QUIET_S = 1.0  # after a change, for the kernel's echo of it
FAMILIES = {4: "ip", 6: "ip6"}


def start(world: World) -> Path:
    answers.configure(world, CONFIG)
    out = world.dir / "deeds"
    paths = (out, world.config, world.dir / "state", world.run_dir)
    log = (world.dir / "daemon.log").open("a")
    with log:
        command = [sys.executable, "-m", "tests.net.counted", *map(str, paths)]
        world["host"].popen(command, stdout=log, stderr=log)
    eventually(lambda: _listens(world), what="the daemon listens")
    await_states(world, ["up"])
    return out


def _listens(world: World) -> bool:
    try:
        return bool(watched.standing(world))
    except NotRunning:
        return False


def deeds(out: Path) -> list[counted.Deed]:
    """What counts: not what is done all the time."""
    return [deed for deed in counted.read(out) if deed.what in TURN]


def await_quiet(out: Path) -> list[counted.Deed]:
    """All that was done, when nothing more has followed for a while."""

    def is_quiet() -> bool:
        return time.monotonic() > deeds(out)[-1].at_s + QUIET_S

    eventually(is_quiet, what="nothing more follows")
    return deeds(out)


@pytest.mark.parametrize("family", [4, 6])
def test_a_failover_is_one_turn(lab_world: LabWorld, family: int) -> None:
    world = lab_world("two")
    out = start(world)
    before = await_quiet(out)
    assert leaves_by(world, family) == "wan0"
    chain = "chain f { type filter hook forward priority 0; drop; }"
    world["isp-a"].nft(f"table {FAMILIES[family]} dead {{ {chain}; }}\n")
    eventually(lambda: leaves_by(world, family) == "wan1", what="it moves")
    done = await_quiet(out)[len(before) :]
    assert [deed.what for deed in done] == TURN
    assert done[-1].at_s - done[0].at_s < 10.0
    world["isp-a"].nft(f"delete table {FAMILIES[family]} dead\n")
    eventually(lambda: leaves_by(world, family) == "wan0", what="it is back")
    returned = await_quiet(out)[len(before) + len(done) :]
    changes = [deed.what for deed in returned if deed.what == "Converge"]
    assert len(changes) == 1, returned
    assert watched.events(world, "repair") == []


def test_the_operators_word_is_one_turn(lab_world: LabWorld) -> None:
    world = lab_world("two")
    out = start(world)
    before = await_quiet(out)
    assert world.ifdefault("uplink", "isp-a", "down").returncode == 0
    assert leaves_by(world) == "wan1"
    done = await_quiet(out)[len(before) :]
    assert [deed.what for deed in done] == [*TURN, TURN[-1]], "connections of each family end"

"""A world's own duties: many uplinks at once, a daemon in it, and no process left behind."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from ifdefault.lab import registry
from ifdefault.lab.fitting import many
from ifdefault.lab.node import CommandFailed
from ifdefault.lab.traffic import measure
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld


def test_a_world_of_31_uplinks_stands_soon(lab_world: LabWorld) -> None:
    begun = time.monotonic()
    world = lab_world(many(31))
    assert time.monotonic() - begun < 60
    world.ifdefault("apply", check=True)
    addresses = [target.address for target in world.topology.targets()]
    assert len(addresses) == 62
    tallies = measure(world["client"], ["icmp"], addresses, count=1, concurrency=1, timeout_s=5.0)
    assert all(tally.ok for tally in tallies)
    assert not sum(world.misrouted().values())


def test_the_daemon_of_a_world_answers_and_ends_with_it(lab_world: LabWorld) -> None:
    world = lab_world("two")
    daemon = world.daemon()
    told = json.loads(world.ifdefault("status", "--json", check=True).stdout)
    assert told["holds"]
    assert "--- daemon.log\n" in world.dump()
    with pytest.raises(CommandFailed, match="exit status"):
        world.daemon()  # one runs already
    assert daemon.poll() is None
    world.down()
    assert daemon.returncode is not None
    assert not Path(f"/proc/{daemon.pid}").exists()


def test_a_daemon_that_ends_at_once_says_why(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world.config.write_text("[uplink.x]\ninterfaces = 'wan0'\n")
    with pytest.raises(CommandFailed, match=r"uplink\.x"):
        world.daemon()


def test_commands_find_the_run_directory_of_their_world(lab_world: LabWorld) -> None:
    world = lab_world("one")
    assert world.run_dir.parent == world.dir
    told = world["host"].run(["printenv", "IFDEFAULT_RUN_DIR", "MORE"], env={"MORE": "x"})
    assert told.stdout.split() == [str(world.run_dir), "x"]


def test_a_process_is_ended_by_whoever_takes_the_world_down(lab_world: LabWorld) -> None:
    """Each of two processes starts one; neither forgets the other's."""
    world = lab_world("one")
    other = World.adopt(world.name)
    children = [
        it["host"].popen(["sleep", "1000"], what=what) for it, what in ((world, "a"), (other, "b"))
    ]
    assert sorted(registry.entries(world.name, "processes").values()) == ["a", "b"]
    world.end("b")
    assert children[1].wait(5.0) == -signal.SIGTERM
    assert children[0].poll() is None
    other.down()
    assert children[0].wait(5.0) == -signal.SIGTERM
    world.down()


def test_a_process_that_does_not_listen_is_killed(lab_world: LabWorld) -> None:
    world = lab_world("one")
    script = "trap '' TERM; touch $0; while :; do sleep 0.1; done"
    mark = world.dir / "deaf"
    child = world["host"].popen(["sh", "-c", script, str(mark)])
    eventually(mark.exists)
    world.end()
    assert child.returncode == -signal.SIGKILL

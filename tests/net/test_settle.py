"""`apply --settle`: what comes later is applied too, without a daemon, for a limited time.

client ── core ─┬─ isp-a ── wan0 ┬─ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

from pathlib import Path

from ifdefault.host.settle import SETTLE, Settling
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.kernelstate import (
    apply,
    differences,
    operations_left,
    processes,
    read_state,
    store_of,
)

B6 = "2001:db8:b::10"


def followers(world: World) -> list[int]:
    """The background processes of this world."""
    return processes(world, "ifdefault.host.settle")


def follows(world: World) -> bool:
    """Whether one of them holds the lock: one that begins at the same time would end."""
    locks = Path("/proc/locks").read_text().split()
    return any(str(pid) in locks for pid in followers(world))


def take_ipv6(world: World) -> None:
    world["host"].ip("address flush dev wan1 scope global\n", "-6")


def give_ipv6(world: World) -> None:
    """As by a router advertisement."""
    default = "default via 2001:db8:b::1 dev wan1 metric 7"
    world["host"].ip(f"address add {B6}/48 dev wan1 nodad\nroute add {default}\n", "-6")


def rules(world: World) -> str:
    return world["host"].run(["ip", "-6", "rule"]).stdout


def test_ipv6_that_comes_later(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.serve(world)
    take_ipv6(world)
    world.ifdefault("apply", "--settle", "600", check=True)
    assert B6 not in rules(world)
    give_ipv6(world)
    eventually(lambda: B6 in rules(world), what="applied again")
    eventually(lambda: not operations_left(world), what="all of it")
    answers.assert_answered(world, ["tcp"], [B6])
    # and when it goes
    take_ipv6(world)
    eventually(lambda: B6 not in rules(world), what="applied once more")
    world.ifdefault("down", "--wait", check=True)


def test_one_process_whose_time_is_extended_and_ends(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world.ifdefault("apply", "--settle", "600", check=True)
    eventually(lambda: follows(world), what="the first is the one")
    [first] = followers(world)
    world.ifdefault("apply", "--wait", "--settle", "601", check=True)
    eventually(lambda: followers(world) == [first], what="the second found the first")
    store_of(world).write(SETTLE, Settling(0.0))
    take_ipv6(world)  # wakes it
    eventually(lambda: not followers(world), what="its time is over")


def test_down_ends_it(lab_world: LabWorld) -> None:
    world = lab_world("two")
    before = read_state(world["host"])
    world.ifdefault("apply", "--settle", "600", check=True)
    eventually(lambda: bool(followers(world)))
    world.ifdefault("down", "--wait", check=True)
    eventually(lambda: not followers(world), what="down has ended it")
    assert differences(before, read_state(world["host"])) == []


def test_the_daemon_ends_it(lab_world: LabWorld) -> None:
    world = lab_world("two")
    world.ifdefault("apply", "--settle", "600", check=True)
    eventually(lambda: bool(followers(world)))
    world.daemon()
    world.ifdefault("reload", check=True)  # it has started
    take_ipv6(world)
    eventually(lambda: not followers(world), what="the daemon has ended it")
    eventually(lambda: B6 not in rules(world), what="the daemon follows")


def test_no_process_without_the_option(lab_world: LabWorld) -> None:
    world = lab_world("two")
    apply(world)
    world.ifdefault("apply", check=True)
    assert followers(world) == []

"""A standby that nothing uses: how little it is probed, and how soon it is verified.

Rules: time is simulated, a day of it too.
"""

from __future__ import annotations

from random import Random

import pytest

from ifdefault.frontend.probe import icmp
from ifdefault.health.pace import SPARSE_S
from ifdefault.model.health import GATEWAY
from tests.unit.test_health_path import TARGETS, World

DAY_S = 86_400.0
ETHERNET = 14  # an interface counts this header, too
IP = {4: 20, 6: 40}


def idle_world(targets: tuple[str, ...] = TARGETS) -> World:
    world = World(targets)
    world.run(60.0)
    world.path.stand_by(world.now, idle=True)
    world.run(5.0)
    world.asked.clear()
    return world


def test_a_day_costs_less_than_a_megabyte() -> None:
    """The figure in ifdefault.toml(5): a ping and its answer each time, in both families."""
    world = idle_world()
    assert world.run(DAY_S) == []
    rounds = len(world.asked)
    assert rounds == DAY_S / SPARSE_S
    assert GATEWAY not in {target for _, target in world.asked}
    size = sum(2 * rounds * (ETHERNET + header + icmp._PACKET_BYTES) for header in IP.values())
    assert 900_000 < size < 1_000_000


def test_it_pings_if_a_target_can_be_pinged() -> None:
    world = idle_world(("https://example.net/", "icmp://192.0.2.2", "tcp://192.0.2.3:443"))
    world.run(600.0)
    assert {target for _, target in world.asked} == {1}
    only = idle_world(("tcp://192.0.2.3:443",))
    only.run(600.0)
    assert {target for _, target in only.asked} == {0}


def test_while_it_is_down_it_costs_as_little() -> None:
    world = idle_world()
    world.dead = {0, 1, 2, 3}
    [down] = world.run(60.0)
    assert down.state == "down"
    world.asked.clear()
    world.run(DAY_S)
    assert len(world.asked) == DAY_S / SPARSE_S
    world.dead.clear()
    assert [change.state for change in world.run(60.0)] == ["recovering", "up"]


@pytest.mark.parametrize("loss", [0.02, 0.1])
def test_slow_rounds_are_no_loss(loss: float) -> None:
    random, world = Random(19), idle_world()
    world.fate = lambda _now, _ask: "lost" if random.random() < loss else 0.05
    assert "down" not in [change.state for change in world.run(10 * DAY_S)]


def test_a_lost_round_is_followed_by_a_burst() -> None:
    world = idle_world()
    world.dead = {0, 1, 2, 3}
    [down] = world.run(2 * SPARSE_S)
    first_lost_s = world.asked[0][0]
    assert first_lost_s < down.at_s < first_lost_s + 1.0


def test_once_it_is_used_it_is_verified_at_once() -> None:
    world = idle_world()
    world.dead = {0, 1, 2, 3}
    used_s = world.now
    world.path.stand_by(used_s, idle=False)
    [down] = world.run(5.0)
    assert down.at_s - used_s < 1.0
    alive = idle_world()
    alive.path.stand_by(alive.now, idle=False)
    assert alive.run(10.0) == []
    assert len(alive.asked) > 15  # as any path

"""A budget of 2 MB is used up by real traffic, and obeyed; the count survives the daemon.

                ┌─ isp-a ── wan0 ┐   isp-a has the budget
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import signal

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.usage import Usage
from tests.net.conftest import LabWorld
from tests.net.watched import await_default, await_states, events, leaves_by, standing
from tests.net.wires import Pair, Wires

CLIENT = "198.18.1.10"
KEYS = 'budget = "2 MB"\non_budget = "standby"\n'


def used(world: World) -> Usage:
    [usage] = standing(world).usage
    return usage


def send(pair: Pair, count: int) -> None:
    """From the host to its peer."""
    for _ in range(count // 50_000):
        pair.ours.sendall(bytes(50_000))
        left = 50_000
        while left:
            left -= len(pair.theirs.recv(left))


def test_a_budget_warns_and_is_obeyed_over_a_restart(lab_world: LabWorld) -> None:
    world = lab_world("two")
    config = world.topology.config.replace("[uplink.isp-a]\n", f"[uplink.isp-a]\n{KEYS}")
    assert config != world.topology.config
    world.config.write_text(config, encoding="utf-8")
    daemon = world.daemon()
    await_states(world, ["up"])
    eventually(lambda: used(world).used_bytes, what="it is counted")
    wires = Wires(world)
    with wires.stack:
        pair = wires.connect("host", wires.listen("client", CLIENT), CLIENT)
        before = used(world).used_bytes
        send(pair, 1_700_000)
        eventually(lambda: used(world).used_bytes >= before + 1_700_000, what="all is counted")
        assert used(world).used_bytes < before + 1.1 * 1_700_000
        assert len(events(world, "budget")) == 1
        assert leaves_by(world) == "wan0"
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
        send(pair, 100_000)  # while nobody counts
        world.daemon()
        eventually(lambda: standing(world).usage, what="it runs again")
        eventually(lambda: used(world).used_bytes >= 1_800_000, what="nothing is lost")
        send(pair, 400_000)
        await_default(world, "wan1")
        assert pair.alive, "what runs goes on"
    warning, error = events(world, "budget")
    assert warning.startswith("isp-a: 1.")
    assert " of its budget used; the next month begins on " in warning
    assert error.startswith(
        "isp-a: its budget of 2.0 MB is used up; the uplink is a standby until "
    )
    assert standing(world).decision.standby == (("isp-a", "budget used up"),)
    assert ", budget used up, standby" in world.ifdefault("status").stdout

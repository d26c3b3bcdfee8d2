"""Both uplinks come in on one cable, each in a VLAN of its own (802.1Q).

                ┌─ isp-a ── VLAN 10 ┐
client ── core ─┤                   ├ switch ── trunk0 host: wan0, wan1
                └─ isp-b ── VLAN 20 ┘
"""

from __future__ import annotations

from ifdefault.lab import faults
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.watched import await_default, await_states, events, start
from tests.system import worlds

VLAN = """
title = "two uplinks on one cable"
links = ["host.trunk0 switch.trunk0", "isp-a.cust0 switch.port-a", "isp-b.cust0 switch.port-b"]

[nodes.switch]
bridges.br10 = ["port-a"]
bridges.br20 = ["port-b"]
interfaces = [
  "add link trunk0 name vlan10 type vlan id 10",
  "set vlan10 master br10 up",
  "add link trunk0 name vlan20 type vlan id 20",
  "set vlan20 master br20 up",
]

[nodes.host]
interfaces = [
  "add link trunk0 name wan0 type vlan id 10",
  "add link trunk0 name wan1 type vlan id 20",
  "set wan0 up",
  "set wan1 up",
]
"""


def test_every_kind_of_traffic_is_answered(lab_world: LabWorld) -> None:
    world = lab_world(worlds.two("vlan", __doc__, VLAN))
    assert worlds.uplinks_found(world) == ["wan0", "wan1"]
    answers.serve(world)
    answers.assert_hangs(world, ["udp-bound"])
    answers.apply(world)
    answers.assert_answered(world)


def test_a_dead_uplink_and_a_dead_cable(lab_world: LabWorld) -> None:
    """One VLAN dies beyond the switch; then the cable of both loses its carrier."""
    world = lab_world(worlds.two("vlan", __doc__, VLAN))
    answers.serve(world)
    start(world)
    with faults.injected(world, "blackhole", "isp-a"):
        await_default(world, "wan1")
        await_states(world, ["down"], "isp-a")
    await_default(world, "wan0")
    assert not [text for text in events(world, "path") if "isp-b" in text and "-> down" in text]
    world["switch"].ip("link set trunk0 down")
    await_states(world, ["down"])
    world["switch"].ip("link set trunk0 up")
    await_states(world, ["up"])
    answers.assert_answered(world)

"""One uplink is a bond of two cables: one of them may go.

                ┌─ isp-a ── switch ══ port0, port1 of wan0 ┐
client ── core ─┤                                          ├ host
                └─ isp-b ──────────── wan1 ────────────────┘
"""

from __future__ import annotations

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.watched import (
    await_default,
    await_states,
    events,
    leaves_by,
    start,
)
from tests.system import worlds

BOND = """
title = "an uplink of two cables"
links = [
  "isp-a.cust0 switch.port-a",
  "host.port0 switch.port0",
  "host.port1 switch.port1",
  "isp-b.cust0 host.wan1",
]

[nodes.switch]
bridges.br0 = ["port-a", "port0", "port1"]

[nodes.host]
interfaces = [
  "set port0 down",
  "set port1 down",
  "add wan0 type bond mode active-backup miimon 20",
  "set port0 master wan0",
  "set port1 master wan0",
  "set wan0 up",
]
"""


def test_a_cable_goes_and_then_the_other(lab_world: LabWorld) -> None:
    world = lab_world(worlds.two("bond", __doc__, BOND))
    eventually(lambda: active(world), what="the bond has a port")
    assert worlds.uplinks_found(world) == ["wan0", "wan1"]
    answers.serve(world)
    start(world)
    answers.assert_answered(world)
    assert leaves_by(world) == "wan0"

    first = active(world)
    world["switch"].ip(f"link set {first} down")
    eventually(lambda: active(world) not in ("", first), what="the other takes over")
    answers.assert_answered(world)
    assert leaves_by(world) == "wan0"
    assert not [text for text in events(world, "path") if "-> down" in text]

    other = active(world)
    world["switch"].ip(f"link set {other} down")
    await_default(world, "wan1")
    await_states(world, ["down"], "isp-a")
    world["switch"].ip(f"link set {first} up\nlink set {other} up")
    await_default(world, "wan0")
    await_states(world, ["up"])
    answers.assert_answered(world)


def active(world: World) -> str:
    """The port that carries the bond, "" for none."""
    text = world["host"].run(["ip", "-d", "link", "show", "wan0"]).stdout
    return text.partition("active_slave ")[2].partition(" ")[0]

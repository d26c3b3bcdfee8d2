"""The second uplink is a DSL line: PPPoE, with a smaller MTU.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host
                └─ isp-b ══ ppp0 ┘   over wan1, dialled by pppd with the kernel's PPPoE
"""

from __future__ import annotations

from functools import partial

from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.watched import await_default, await_states, leaves_by, start
from tests.system import worlds

# dummies stand for what pppd makes: so that the lab knows its names and addresses
DSL = """
title = "a DSL line"
links = ["isp-a.cust0 host.wan0", "isp-b.dsl0 host.wan1"]
config = '''
[uplink.isp-a]
interface = "wan0"

[uplink.isp-b]
interface = "ppp0"
'''

[nodes.isp-b]
interfaces = ["add cust0 type dummy"]
scripts.up = "ip link del cust0"

[nodes.host]
interfaces = ["add ppp0 type dummy"]
addresses.wan1 = []
addresses.ppp0 = ["198.51.100.10/32", "2001:db8:b::10/128"]
routes = ["default via 203.0.113.1", "default via 2001:db8:a::1"]
scripts.up = "ip link del ppp0"
scripts.dialled = '''
ip -4 route add default dev ppp0 metric 100
ip -6 address add 2001:db8:b::10/128 dev ppp0 nodad
ip -6 route add default dev ppp0 metric 2048
'''
"""
SERVER = "noauth nodetach ifname cust0 lcp-echo-interval 0"
CLIENT = "noauth nodetach nodefaultroute noipdefault ifname ppp0 maxfail 0 persist holdoff 1"


def test_a_line_is_dialled_hangs_up_and_is_dialled_again(lab_world: LabWorld) -> None:
    world = lab_world(worlds.two("pppoe", __doc__, DSL))
    world["host"].run(["modprobe", "pppoe"])  # pppd looks for its device first
    answer(world)
    dial(world)
    assert worlds.uplinks_found(world) == ["wan0", "ppp0"]
    world["host"].ip("route del default dev ppp0\n")
    assert worlds.uplinks_found(world) == ["wan0", "ppp0"], "the peer needs no default"
    world["host"].ip("route add default dev ppp0 metric 100\n")
    answers.serve(world)
    start(world)
    answers.assert_answered(world)
    assert leaves_by(world) == "wan0"

    world.ifdefault("uplink", "isp-a", "down", check=True)
    await_default(world, "ppp0")
    hang_up(world)
    eventually(lambda: leaves_by(world) == "wan0", what="another uplink takes over")
    dial(world)
    await_states(world, ["up"], "isp-b")
    await_default(world, "ppp0")
    answers.assert_answered(world)


def answer(world: World) -> None:
    """The provider's end."""
    options = world.dir / "pppoe-server.options"
    options.write_text(SERVER.replace(" ", "\n") + "\n")
    addresses = ["-L", "198.51.100.1", "-R", "198.51.100.10"]
    command = ["pppoe-server", "-F", "-N", "1", "-I", "dsl0", "-O", str(options), *addresses]
    with (world.dir / "pppoe-server.log").open("w") as log:
        world["isp-b"].popen(command, stdout=log, stderr=log)


def dial(world: World) -> None:
    command = ["pppd", "plugin", "rp-pppoe.so", "wan1", *CLIENT.split()]
    with (world.dir / "pppd.log").open("a") as log:
        world["host"].popen(command, stdout=log, stderr=log, what="pppd")
    for node, dev, address in (("host", "ppp0", "198.51.100.10"), ("isp-b", "cust0", "peer")):
        try:
            eventually(partial(has, world[node], dev, address))
        except TimeoutError:
            logs = "\n".join(path.read_text() for path in world.dir.glob("ppp*.log"))
            raise AssertionError(f"{node} has no {dev}:\n{logs}") from None
    world["host"].script("dialled")
    world["isp-b"].ip("route replace 2001:db8:b::10 dev cust0\n", "-6")


def hang_up(world: World) -> None:
    world.end("pppd")
    for node, dev in (("host", "ppp0"), ("isp-b", "cust0")):
        gone = partial(lacks, world[node], dev)
        eventually(gone, what=f"{dev} of {node} is gone")


def has(node: Node, dev: str, word: str) -> bool:
    return word in node.run(["ip", "-4", "address", "show", dev], check=False).stdout


def lacks(node: Node, dev: str) -> bool:
    return not has(node, dev, dev)

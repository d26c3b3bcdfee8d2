"""A VRF for the management network stands beside the uplinks, with a default of its own.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host ── lan0 in VRF mgmt ── admin ── 10.30.0.0/16
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import socket
from functools import partial

from ifdefault.lab import ports, services
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.evidence import tapped
from tests.net.watched import await_states, start
from tests.system import worlds

VRF = """
title = "a VRF for management"
links = ["isp-a.cust0 host.wan0", "isp-b.cust0 host.wan1", "host.lan0 admin.lan0"]

[nodes.host]
interfaces = ["add mgmt type vrf table 100", "set mgmt up", "set lan0 master mgmt"]
scripts.up = '''
ip address add 192.168.1.1/24 dev lan0
ip address add fd00:1::1/64 dev lan0 nodad
ip route add default via 192.168.1.10 table 100
ip route add default via fd00:1::10 dev lan0 table 100
'''
routes = [
  "default via 203.0.113.1",
  "default via 2001:db8:a::1",
  "default via 198.51.100.1 metric 100",
  "default via 2001:db8:b::1 metric 2048",
]
sysctls = { "net.ipv4.tcp_l3mdev_accept" = 1 }

[nodes.admin]
addresses.lan0 = ["192.168.1.10/24", "fd00:1::10/64"]
addresses.lo = ["10.30.0.1/32", "fd00:30::1/128"]
"""
FAR = ("10.30.0.1", "fd00:30::1")  # only the VRF's default leads there


def test_neither_bends_the_other(lab_world: LabWorld) -> None:
    world = lab_world(worlds.two("vrf", __doc__, VRF))
    assert worlds.uplinks_found(world) == ["wan0", "wan1"]
    services.builtin(world["host"])
    services.builtin(world["admin"])
    before = reached(world)
    assert before == [True, True]
    start(world)
    assert reached(world) == before
    answers.assert_answered(world)
    # what serves in all of them is answered in the VRF, too
    answers.assert_answered(world, ["tcp", "icmp"], ["192.168.1.1", "fd00:1::1"], node="admin")
    assert world.ifdefault("plan").stdout == ""
    world.ifdefault("down", check=True)
    assert reached(world) == before


def test_the_daemon_sees_a_vrf_come_and_go(lab_world: LabWorld) -> None:
    """Its routes and its rule are the kernel's, and no uplink of ours changes for them."""
    world = lab_world("two")
    answers.serve(world)
    start(world)
    host = world["host"]
    host.ip("link add mgmt type vrf table 100\nlink set mgmt up\nlink set lan0 master mgmt\n")
    answers.assert_answered(world)
    host.ip("link del mgmt\n")
    answers.assert_answered(world)
    await_states(world, ["up"])


def reached(world: World) -> list[bool]:
    """Whether a socket in the VRF reaches each address beyond it, and by its interface."""
    found = []
    for address in FAR:
        with tapped(world["host"]) as tap:
            answered = world["host"].python(partial(_echoes, address))
            found.append(answered and "lan0" in tap.left_by(dst=address))
    return found


def _echoes(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"mgmt")
        sock.connect((address, ports.TCP_ECHO))
        sock.sendall(b"hello")
        return sock.recv(5) == b"hello"

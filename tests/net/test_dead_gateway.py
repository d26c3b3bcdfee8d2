"""A gateway that doesn't say its MAC takes nothing from the other uplinks.

                 ┌─ isp-a ── wan0 ┐  answers wait here for isp-a's MAC, which never comes
client ── core ──┤                ├ host
                 └─ isp-b ── wan1 ┘  and leave here all the same

The kernel sends echo replies of all interfaces from one socket a processor, whose buffer the
queue of a silent gateway would fill.
"""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest

from ifdefault.lab.attempts import checksum
from ifdefault.lab.topology import LinkEnd
from ifdefault.lab.world import World
from ifdefault.model.config import Family
from tests.net.conftest import LabWorld
from tests.net.kernelstate import apply, down

MANY, SOME = 600, 20
MUTE = """
table arp mute { chain in { type filter hook input priority 0; iifname "wan0" drop; }; }
table ip6 mute {
  chain in {
    type filter hook input priority 0;
    iifname "wan0" icmpv6 type { nd-neighbor-advert, nd-neighbor-solicit, nd-router-advert } drop
  }
}
"""


@pytest.mark.parametrize("family", [4, 6])
def test_the_other_uplink_loses_nothing(lab_world: LabWorld, family: Family) -> None:
    world = lab_world("two")
    name = f"net.ipv{family}.neigh.wan0.unres_qlen_bytes"
    original = world["host"].sysctl(name)
    apply(world)
    assert int(world["host"].sysctl(name)) < int(original)
    dead, living = (
        next(t.address for t in world.topology.targets() if (t.provider, t.family) == key)
        for key in (("isp-a", family), ("isp-b", family))
    )
    assert pings(world, living, SOME) == SOME
    known = f"neigh replace {dead} lladdr {LinkEnd('host', 'wan0').mac} dev cust0 nud permanent"
    world["isp-a"].ip(f"{known}\n")
    world["host"].nft(MUTE)
    world["host"].run(["ip", "neigh", "flush", "dev", "wan0", "nud", "all"], check=False)
    assert pings(world, dead, MANY, patience_s=0.0) == 0
    assert "INCOMPLETE" in world["host"].run(["ip", "neigh", "show", "dev", "wan0"]).stdout
    assert pings(world, living, SOME) == SOME
    down(world)
    assert world["host"].sysctl(name) == original


def pings(world: World, address: str, count: int, patience_s: float = 1.0) -> int:
    """How many of so many echo requests of the client are answered. All are sent, and dealt with,
    on one processor."""
    six = ":" in address

    def ask() -> int:
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        family, protocol, kind = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128)
            if six
            else (socket.AF_INET, socket.IPPROTO_ICMP, 8)
        )
        with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
            sock.connect((address, 0))
            for seq in range(count):
                head = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, seq)
                if not six:  # the kernel makes ICMPv6's
                    head = head[:2] + checksum(head).to_bytes(2, "big") + head[4:]
                sock.send(head)
            return sum(_hears(sock, patience_s, six=six) for _ in range(count))

    return world["client"].python(ask)


def _hears(sock: socket.socket, patience_s: float, *, six: bool) -> bool:
    """Whether one more echo reply comes in time."""
    until_s = time.monotonic() + patience_s
    while True:
        sock.settimeout(max(0.0001, until_s - time.monotonic()))
        try:
            data = sock.recv(2048)
        except (TimeoutError, BlockingIOError):
            return False
        if data[0 if six else 20] == (129 if six else 0):
            return True

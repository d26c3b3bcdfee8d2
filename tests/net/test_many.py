"""A host with thousands of addresses and of routes to its LANs: all is as with few.

                ┌─ isp-a ── wan0 ┐   a routed block of addresses
client ── core ─┤                ├ host ── lan0   thousands of addresses and clients
                └─ isp-b ── wan1 ┘

None are adjacent, so that no prefix stands for many of them.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

import pytest

from ifdefault.ipc.control.protocol import Down
from ifdefault.kernel.ebpf import attach
from ifdefault.lab import faults, registry
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.kernel import PROTOCOL
from tests.net import answers, watched
from tests.net.conftest import LabWorld
from tests.net.watched import await_default, events, request, standing

MANY = 4000
DNS_ADDRESSES = 700
NAME = "www.example.net"
DNS = f'[[dns.name]]\nname = "{NAME}"\n[dns.server]\nzones = ["{NAME}"]\nrate_limit = 0\n'


def block(count: int) -> list[str]:
    """Addresses that isp-a routes to the host, which its filter accepts as sources."""
    return [f"2001:db8:a:1::{2 * n:x}" for n in range(1, count + 1)]


def add_many(world: World) -> None:
    own = (f"address add 10.99.{n >> 7}.{2 * n & 255}/32 dev lan0\n" for n in range(MANY))
    clients = (f"route add 10.98.{n >> 7}.{2 * n & 255}/32 dev lan0\n" for n in range(MANY))
    world["host"].ip("".join((*own, *clients)))


def test_a_host_with_thousands_of_addresses_and_lan_routes(lab_world: LabWorld) -> None:
    world = lab_world("two")
    add_many(world)
    watched.start(world, '[outgoing]\nmode = "balance"\n')
    assert world["host"].python(attach.read) is not None
    with faults.injected(world, "blackhole", "isp-a"):
        await_default(world, "wan1")
    assert not [text for text in events(world) if "no longer" in text or "ended:" in text]
    request(world, Down())
    assert world["host"].python(attach.read) is None
    assert f"proto {PROTOCOL}" not in world["host"].run(["ip", "rule"]).stdout


@pytest.fixture
def served(lab_world: LabWorld) -> World:
    world = lab_world("two")
    world["host"].ip("".join(f"address add {a}/128 dev wan0 nodad\n" for a in block(DNS_ADDRESSES)))
    world["isp-a"].ip("route add 2001:db8:a:1::/64 via 2001:db8:a::10\n", "-6")
    answers.configure(world, DNS)
    world.daemon()
    await_sockets(world)
    return world


def await_sockets(world: World) -> None:
    sockets = f"{2 * (DNS_ADDRESSES + 4)} sockets"
    eventually(
        lambda: any(p.detail.endswith(sockets) for p in standing(world).dns.publishers),
        what="the server answers on every address",
    )


def answered(world: World) -> int:
    """How many of the addresses answer a query."""
    query = bytes(5) + b"\1" + bytes(6) + b"\3www\7example\3net\0\0\1\0\1"

    def ask() -> int:
        count = 0
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            for address in block(DNS_ADDRESSES):
                sock.sendto(query, (address, 53))
                with suppress(TimeoutError):
                    count += sock.recvfrom(512)[1][0] == address
        return count

    return world["isp-a"].python(ask)


def test_hundreds_of_addresses_answer_dns_and_go_on_when_the_engine_dies(served: World) -> None:
    assert answered(served) == DNS_ADDRESSES
    pid = standing(served).pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not registry.start_time(pid), what="the engine has ended")
    assert answered(served) == DNS_ADDRESSES
    served.daemon()
    await_sockets(served)
    assert answered(served) == DNS_ADDRESSES

"""A probe's socket leaves by exactly its uplink, and needs no rights once it is open.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host
                └─ isp-b ── wan1 ┘

and "shared-address", where both routers are behind wan0 and one address is all that the host has.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import product
from select import select

import pytest

from ifdefault.kernel import open_probe_sockets
from ifdefault.lab import ports, services
from ifdefault.lab.attempts import checksum
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family, HostConfig
from ifdefault.plan import numbers
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.evidence import tapped
from tests.unit.open_files import open_files

ISPS = ("isp-a", "isp-b")
# of "shared-address" each router serves one of the client's networks
CLIENT: dict[tuple[str, Family], str] = {
    ("isp-a", 4): "198.18.1.10",
    ("isp-b", 4): "198.18.2.10",
    ("isp-a", 6): "2001:db8:f:1::10",
    ("isp-b", 6): "2001:db8:f:2::10",
}
OWN: dict[tuple[str, Family], tuple[str, str]] = {
    ("isp-a", 4): ("203.0.113.10", "wan0"),
    ("isp-b", 4): ("198.51.100.10", "wan1"),
    ("isp-a", 6): ("2001:db8:a::10", "wan0"),
    ("isp-b", 6): ("2001:db8:b::10", "wan1"),
}
Made = Callable[[Family, str, str, int], socket.socket]
WAIT_S = PATIENCE_S


def bound(world: World, made: Made, isp: str, family: Family) -> socket.socket:
    """A socket for an uplink, as created by the engine."""
    if world.topology.name == "two":
        address, dev, mark = *OWN[isp, family], 0
    else:
        address, dev = OWN["isp-a", family]
        mark = numbers.arrival_mark(HostConfig(), ISPS.index(isp) + 1)
    return world["host"].python(lambda: made(family, address, dev, mark))


def echo(family: Family, nonce: bytes) -> bytes:
    message = struct.pack("!BBHHH", {4: 8, 6: 128}[family], 0, 0, 7, 1) + nonce
    if family == 4:
        message = message[:2] + checksum(message).to_bytes(2) + message[4:]
    return message


def ready(sock: socket.socket, wait_s: float = WAIT_S, *, write: bool = False) -> bool:
    waiting = [sock]
    readable, writable, _ = select([] if write else waiting, waiting if write else [], [], wait_s)
    return bool(readable or writable)


def ask_icmp(sock: socket.socket, target: str, family: Family) -> None:
    nonce = os.urandom(16)
    sock.sendto(echo(family, nonce), (target, 0))
    assert ready(sock)
    data, peer = sock.recvfrom(2048)
    assert (data[-16:], peer[0]) == (nonce, target)


def ask_tcp(sock: socket.socket, target: str, _: Family) -> None:
    assert sock.connect_ex((target, ports.TCP_ECHO)) == errno.EINPROGRESS
    assert ready(sock, write=True)
    sock.send(b"anybody?")
    assert ready(sock)
    assert sock.recv(64) == b"anybody?"


def ask_udp(sock: socket.socket, target: str, _: Family) -> None:
    sock.connect((target, ports.UDP_BOUND))
    sock.send(b"anybody?")
    assert ready(sock)
    assert sock.recv(64) == b"anybody?"


KINDS: dict[str, tuple[Made, Callable[[socket.socket, str, Family], None]]] = {
    "icmp": (open_probe_sockets.icmp_socket, ask_icmp),
    "tcp": (open_probe_sockets.stream_socket, ask_tcp),
    "udp": (open_probe_sockets.datagram_socket, ask_udp),
}


@pytest.fixture(params=["two", "shared-address"])
def world(request: pytest.FixtureRequest, lab_world: LabWorld) -> World:
    world = lab_world(request.param)
    services.builtin(world["client"])
    answers.apply(world)
    return world


def came_by(world: World, sock: socket.socket, ask: Callable[[], object], target: str) -> set[str]:
    """The providers that saw packets to the target while it was probed."""
    with ExitStack() as stack:
        taps = {isp: stack.enter_context(tapped(world[isp])) for isp in ISPS}
        ask()
        own = sock.getsockname()[0]
        return {isp for isp, tap in taps.items() if tap.came_by(src=own, dst=target)}


@pytest.mark.parametrize("kind", KINDS)
def test_it_leaves_by_its_uplink(world: World, kind: str) -> None:
    made, ask = KINDS[kind]
    for isp, family in product(ISPS, FAMILIES):
        target = CLIENT[isp, family]
        with bound(world, made, isp, family) as sock:
            talk = partial(ask, sock, target, family)
            assert came_by(world, sock, talk, target) == {isp}, family
    assert not any(world.misrouted().values())


def test_it_hears_echo_replies_alone(lab_world: LabWorld) -> None:
    """Echo requests, and errors about other packets, aren't received."""
    world = lab_world("two")
    for family in FAMILIES:
        own, _ = OWN["isp-a", family]
        with bound(world, open_probe_sockets.icmp_socket, "isp-a", family) as sock:
            world["client"].run(["ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", own])
            assert _refused(world["host"], own, CLIENT["isp-a", family])
            ask_icmp(sock, CLIENT["isp-a", family], family)  # the first that it hears is its own
            assert not ready(sock, 0)


def _refused(host: Node, source: str, target: str) -> bool:
    """Whether an ICMP error came back to a datagram to a closed port."""
    with answers.udp_socket(host, source) as sock:
        sock.connect((target, ports.CLOSED))
        sock.send(b"anybody?")
        try:
            sock.recv(64)
        except ConnectionRefusedError:
            return True
        return False


_WITHOUT_RIGHTS = """
import ctypes, select, socket, sys
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, none) == 0
status = open("/proc/self/status").read()
assert int(status.partition("CapEff:")[2].split()[0], 16) == 0
fd, message, target = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3]
sock = socket.socket(fileno=fd)
for forbidden in (
    lambda: socket.socket(sock.family, socket.SOCK_RAW, sock.proto),
    lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7),
    lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"),
):
    try:
        forbidden()
    except PermissionError:
        continue
    raise SystemExit("it still has rights")
sock.sendto(message, (target, 0))
assert select.select([sock], [], [], 20)[0]
data, peer = sock.recvfrom(2048)
assert (data[-16:], peer[0]) == (message[-16:], target)
"""


def test_it_serves_a_process_without_rights(world: World) -> None:
    for isp, family in product(ISPS, FAMILIES):
        with bound(world, open_probe_sockets.icmp_socket, isp, family) as sock:
            target, fd = CLIENT[isp, family], sock.fileno()
            words = [str(fd), echo(family, os.urandom(16)).hex(), target]
            child = partial(_run_without_rights, words, fd)
            assert came_by(world, sock, child, target) == {isp}, family


def _run_without_rights(words: list[str], fd: int) -> None:
    command = [sys.executable, "-c", _WITHOUT_RIGHTS, *words]
    done = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_or_device_that_is_gone_is_an_error(lab_world: LabWorld, kind: str) -> None:
    host, made = lab_world("one")["host"], KINDS[kind][0]
    open_before = open_files()
    for address, dev in (("203.0.113.99", "wan0"), ("2001:db8:a::99", "wan0"), ("::1", "gone0")):
        family: Family = 6 if ":" in address else 4
        with pytest.raises(OSError):
            host.python(lambda f=family, a=address, d=dev: made(f, a, d, 0))  # type: ignore[misc]
    assert open_files() == open_before


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_local_address(lab_world: LabWorld, kind: str) -> None:
    host, made = lab_world("one")["host"], KINDS[kind][0]
    own = next(
        line.split()[3].partition("/")[0]
        for line in host.run(
            "ip -6 -o address show dev wan0 scope link".split()
        ).stdout.splitlines()
    )
    with host.python(lambda: made(6, own, "wan0", 0)) as sock:
        assert sock.getsockname()[0].partition("%")[0] == own
        assert not sock.getblocking()
        assert not sock.get_inheritable()

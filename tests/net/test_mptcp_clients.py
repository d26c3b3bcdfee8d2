"""MPTCP for those whom it can't help: they fall back to TCP and lose nothing.

                ┌─ isp-a ── wan0 ┐   its router removes MPTCP's options, or mirrors them
client ── core ─┤                ├ host, which announces both its addresses
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from ifdefault.kernel.mptcp_connections import MptcpCount, count_mptcp
from ifdefault.kernel.tcp_stats import TcpMonitor
from ifdefault.lab.faults import injected
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from ifdefault.model.health import TcpStats
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.wires import PORT as PLAIN
from tests.net.wires import Wires

MPTCP, PORT = 262, 7960  # linux/in.h
A, B = ("203.0.113.10", "2001:db8:a::10"), ("198.51.100.10", "2001:db8:b::10")
OWNERS = {**dict.fromkeys(A, "isp-a"), **dict.fromkeys(B, "isp-b")}
CONTENT = random.Random(19).randbytes(1 << 20)


class Server:
    """Sends the content when it is asked by one byte, and closes the connection on another one."""

    def __init__(self, world: World, node: str = "host") -> None:
        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, MPTCP)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", PORT))
            sock.listen(64)
            return sock

        self._sock = world[node].python(listen)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while sock.recv(1) == b"?":
                sock.sendall(CONTENT)


class Client:
    """A client of a node that speaks MPTCP and accepts addresses."""

    def __init__(self, world: World, node: str, target: str, source: str = "") -> None:
        def connect() -> socket.socket:
            family = socket.AF_INET6 if ":" in target else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM, MPTCP)
            sock.settimeout(PATIENCE_S)
            sock.bind((source, 0))
            sock.connect((target, PORT))
            return sock

        self._sock = world[node].python(connect)

    def close(self) -> None:
        self._sock.close()

    def download(self) -> None:
        """All of it arrives, and in order."""
        self._sock.sendall(b"?")
        got = b""
        while len(got) < len(CONTENT) and (data := self._sock.recv(1 << 16)):
            got += data
        assert hashlib.sha256(got).digest() == hashlib.sha256(CONTENT).digest()


def counted(world: World) -> MptcpCount:
    return world["host"].python(lambda: count_mptcp(OWNERS))


def read_stats() -> dict[str, TcpStats]:
    with TcpMonitor() as monitor:
        return monitor.read(0.0)


def spread(world: World, count: MptcpCount) -> None:
    eventually(lambda: counted(world) == count, what=str(count))


@pytest.fixture
def world(lab_world: LabWorld) -> Iterator[World]:
    world = lab_world("two")
    answers.configure(world, "[mptcp]\nannounce = true\n")
    answers.apply(world)
    for node in ("client", "isp-a", "isp-b"):
        world[node].run("ip mptcp limits set subflows 8 add_addr_accepted 8".split())
    with closing(Server(world)):
        yield world


def asked(world: World) -> int:
    """The SYNs that came to the host with MPTCP's option."""
    names, values = (
        line.split()
        for line in world["host"].run(["cat", "/proc/net/netstat"]).stdout.splitlines()
        if line.startswith("MPTcpExt")
    )
    return int(values[names.index("MPCapableSYNRX")])


@pytest.mark.parametrize(("fault", "reaches_the_host"), [("no-mptcp", False), ("mirror", True)])
def test_middleboxes(world: World, fault: str, reaches_the_host: bool) -> None:
    """On the way of the first subflow it is TCP that remains; on that of the second, the first."""
    before = asked(world)
    for provider, left in (("isp-a", MptcpCount(2, 0, 0)), ("isp-b", MptcpCount(2, 2, 0))):
        with injected(world, fault, provider), ExitStack() as stack:
            for target in A:
                client = stack.enter_context(closing(Client(world, "client", target)))
                client.download()
                client.download()
            assert counted(world) == left, provider
            if provider == "isp-a":
                assert asked(world) - before == 2 * reaches_the_host
        spread(world, MptcpCount())
    with closing(Client(world, "client", A[0])) as client:
        client.download()
        spread(world, MptcpCount(1, 1, 1))


def test_clients_on_an_uplinks_own_network(world: World) -> None:
    """Whichever uplink they come in by, and from whichever address."""
    for provider, own in (("isp-a", "203.0.113.1"), ("isp-b", "198.51.100.1")):
        for target in (A[0], B[0]):
            for source in ("", own):
                with closing(Client(world, provider, target, source)) as client:
                    client.download()
                    spread(world, MptcpCount(1, 1, 1))
                    client.download()
                spread(world, MptcpCount())
    assert set(world.misrouted().values()) == {0}


def test_connections_of_the_hosts_own(lab_world: LabWorld) -> None:
    """They go on by the other uplink, with and without what is announced to clients."""
    world = lab_world("two")
    world["host"].run("ip mptcp limits set subflows 2 add_addr_accepted 0".split())
    for announce in ("false", "true"):
        answers.configure(world, f"[mptcp]\nannounce = {announce}\noutgoing = true\n")
        answers.apply(world)
        with closing(Server(world, "client")), ExitStack() as stack:
            clients = [
                stack.enter_context(closing(Client(world, "host", target)))
                for target in ("198.18.1.10", "2001:db8:f:1::10")
            ]
            for client in clients:
                client.download()
            spread(world, MptcpCount(2, 2, 2))
            with injected(world, "blackhole", "isp-a"):
                for client in clients:
                    client.download()
    assert set(world.misrouted().values()) == {0}


def test_what_is_said(world: World) -> None:
    """Of what is announced, of the connections, and of a server that doesn't speak MPTCP."""
    wires = Wires(world)
    with wires.stack, closing(Client(world, "client", A[1])) as client:
        plain = wires.listen("host", "0.0.0.0")
        wires.connect("client", plain, B[0])
        client.download()
        spread(world, MptcpCount(2, 1, 1))
        text = world.ifdefault("status").stdout
        assert (
            f"Uplink  Announced by MPTCP\nisp-a   {A[0]}, {A[1]}\nisp-b   {B[0]}, {B[1]}\n" in text
        )
        assert "1 of 2 connections use MPTCP, 1 (50 %) could go on over another uplink\n" in text
        stats = world["host"].python(read_stats)
        assert [stats[address].subflows for address in (A[1], B[0], B[1])] == [1, 1, 1]
        assert answers.status(world)["mptcp"]["count"] == {
            "connections": 2,
            "mptcp": 1,
            "redundant": 1,
        }
        world["host"].run("ip mptcp endpoint add 192.0.2.9 id 7 subflow".split())
        done = world.ifdefault("check", check=True)
        assert (
            f"doesn't speak MPTCP on TCP port {PLAIN}, so that its connections end" in done.stderr
        )
        assert str(PORT) not in done.stderr
        assert "hint: mptcp endpoint 7: 192.0.2.9 is managed by " in done.stderr
        assert done.stdout.startswith("ok: 2 uplinks, 2 hints")
    explained = world.ifdefault("explain", "tcp", "198.18.1.10:5", f"{A[0]}:80").stdout
    assert f"{A[0]} is announced\n" in explained

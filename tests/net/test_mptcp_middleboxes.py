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
from contextlib import ExitStack, closing

import pytest

from ifdefault.kernel.mptcp_connections import MptcpCount, count_mptcp
from ifdefault.lab.faults import injected
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

MPTCP, PORT = 262, 7960  # linux/in.h
A, B = ("203.0.113.10", "2001:db8:a::10"), ("198.51.100.10", "2001:db8:b::10")
OWNERS = {**dict.fromkeys(A, "isp-a"), **dict.fromkeys(B, "isp-b")}
CONTENT = random.Random(19).randbytes(1 << 20)


class Server:
    """Sends the content when it is asked by one byte, and closes the connection on another one."""

    def __init__(self, world: World) -> None:
        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, MPTCP)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", PORT))
            sock.listen(64)
            return sock

        self._sock = world["host"].python(listen)
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
        with sock:
            while sock.recv(1) == b"?":
                sock.sendall(CONTENT)


class Client:
    """A client of a node that speaks MPTCP and accepts addresses."""

    def __init__(self, world: World, node: str, target: str) -> None:
        def connect() -> socket.socket:
            family = socket.AF_INET6 if ":" in target else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM, MPTCP)
            sock.settimeout(PATIENCE_S)
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


@pytest.fixture
def world(lab_world: LabWorld) -> Iterator[World]:
    world = lab_world("two")
    answers.apply(world)
    for node in ("client", "isp-a", "isp-b"):
        world[node].run("ip mptcp limits set subflows 8 add_addr_accepted 8".split())
    h = world["host"]
    h.run("ip mptcp limits set subflows 8 add_addr_accepted 0".split())
    for n, (a, d) in enumerate(((A[0], "wan0"), (A[1], "wan0"), (B[0], "wan1"), (B[1], "wan1"))):
        h.run(f"ip mptcp endpoint add {a} dev {d} id {130 + n} signal".split())
    with closing(Server(world)):
        yield world


def test_options_that_are_removed_or_mirrored(world: World) -> None:
    for fault in ("no-mptcp", "mirror"):
        with injected(world, fault, "isp-a"), ExitStack() as stack:
            for target in A:
                client = stack.enter_context(closing(Client(world, "client", target)))
                client.download()
                client.download()
            assert counted(world) == MptcpCount(2, 0, 0), fault
        eventually(lambda: counted(world) == MptcpCount(), what="all are closed")


def test_joins_that_are_refused(world: World) -> None:
    for fault in ("no-mptcp", "mirror"):
        with injected(world, fault, "isp-b"), ExitStack() as stack:
            for target in A:
                client = stack.enter_context(closing(Client(world, "client", target)))
                client.download()
                client.download()
            print(counted(world))
            assert counted(world).redundant == 0
    with closing(Client(world, "client", A[0])) as client:
        client.download()
        eventually(lambda: counted(world) == MptcpCount(1, 1, 1), what="both uplinks are used")


@pytest.mark.parametrize("n", [0, 1])
def test_clients_on_an_uplinks_own_network(world: World, n: int) -> None:
    for node in ("isp-a", "isp-b"):
        for target in (A[n], B[n]):
            with closing(Client(world, node, target)) as client:
                client.download()
                import time

                time.sleep(0.5)
                print(node, target, counted(world))
                print(world["host"].run(["ss", "-tnei"]).stdout)
                client.download()
            eventually(lambda: counted(world) == MptcpCount(), what="all are closed")
    print(world["isp-a"].run("nft list table inet bcp38".split()).stdout)

"""ICMP errors that somebody off the path forges count for nothing.

client ── core ── isp-a ── wan0 host     the server at the client is played by this process, and so
          │                              is the probe; the forger knows all but the query
          forger
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from ifdefault.frontend.client import query
from ifdefault.frontend.client.no_reply import NoReply
from ifdefault.frontend.probe import dns
from ifdefault.frontend.probe.outcome import ProbeError
from ifdefault.kernel import open_probe_sockets
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from tests.net.conftest import LabWorld
from tests.net.test_frontend import CLIENT, OWN

AF = {4: socket.AF_INET, 6: socket.AF_INET6}
ROUTER: dict[Family, str] = {4: "192.0.2.77", 6: "2001:db8:99::1"}
UDP, ICMP, NAME = 17, {4: 1, 6: 58}, "www.example"
UNREACHABLE = {4: (3, 3), 6: (1, 4)}  # type and code of "port unreachable": RFC 792, RFC 4443


def ip(family: Family, source: str, to: str, protocol: int, body: bytes) -> bytes:
    ends = socket.inet_pton(AF[family], source) + socket.inet_pton(AF[family], to)
    if family == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends + body
    length = 20 + len(body)  # the kernel adds ID and checksum
    return struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, protocol, 0) + ends + body


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass
class Query:
    """A query that has reached the server at `target`."""

    raw: socket.socket
    server: socket.socket
    family: Family
    message: bytes
    port: int

    def forge(self, sender: str, quoted: bytes) -> None:
        """An error that quotes the ports, and this."""
        quoted += bytes(len(quoted) % 2)
        udp = struct.pack("!4H", self.port, 53, 8 + len(quoted), 0) + quoted
        inner = ip(self.family, OWN[self.family], CLIENT[self.family], UDP, udp)
        kind, code = UNREACHABLE[self.family]
        body = struct.pack("!BBHI", kind, code, 0, 0) + inner
        pseudo = b""
        if self.family == 6:
            ends = (socket.inet_pton(AF[6], a) for a in (sender, OWN[6]))
            pseudo = b"".join(ends) + struct.pack("!II", len(body), ICMP[6])
        body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
        packet = ip(self.family, sender, OWN[self.family], ICMP[self.family], body)
        self.raw.sendto(packet, (OWN[self.family], 0))

    def answer(self) -> None:
        response = self.message[:2] + b"\x85\x80" + self.message[4:10] + b"\0\0"
        end = len(self.message) - (11 if self.message[11] else 0)  # without OPT
        self.server.sendto(response + self.message[12:end], (OWN[self.family], self.port))


Ask = Callable[[socket.socket, str], Awaitable[object]]


async def probed(sock: socket.socket, target: str) -> object:
    return (await dns.probe(sock, target, 53, NAME)).verdict


async def queried(sock: socket.socket, target: str) -> object:
    return (await query.ask(sock, target, 53, NAME, "A", recurse=True)).texts


@contextmanager
def sockets(world: World, family: Family) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The forger's and the server's."""

    def raw() -> socket.socket:
        return socket.socket(AF[family], socket.SOCK_RAW, socket.IPPROTO_RAW)

    def server() -> socket.socket:
        sock = socket.socket(AF[family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind((CLIENT[family], 53))
        return sock

    with world["core"].python(raw) as forger, world["client"].python(server) as served:
        yield forger, served


async def outcome(world: World, family: Family, ask: Ask, then: Callable[[Query], None]) -> object:
    """What comes of a query if this is done when it has arrived."""
    with sockets(world, family) as (raw, server):
        with world["host"].enter():
            sock = open_probe_sockets.datagram_socket(family, OWN[family], "wan0")
        with sock:
            asking = asyncio.ensure_future(ask(sock, CLIENT[family]))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(20):
                message, where = await loop.sock_recvfrom(server, 4096)
                then(Query(raw, server, family, message, where[1]))
                return await asking


@pytest.mark.parametrize("family", FAMILIES)
def test_forged_errors_count_for_nothing(lab_world: LabWorld, family: Family) -> None:
    world = lab_world("two")

    def forge_then_answer(asked: Query) -> None:
        other = (int.from_bytes(asked.message[:2], "big") ^ 1).to_bytes(2, "big")
        for sender in (CLIENT[family], ROUTER[family]):
            for quoted in (b"", other, other + asked.message[2:]):
                asked.forge(sender, quoted)
        asked.answer()

    def forge(sender: str, size: int) -> Callable[[Query], None]:
        return lambda asked: asked.forge(sender, asked.message[:size])

    async def main() -> None:
        assert await outcome(world, family, probed, forge_then_answer) == "answered"
        assert await outcome(world, family, queried, forge_then_answer) == ()
        for size in (2, 512):
            with pytest.raises(ProbeError) as caught:
                await outcome(world, family, probed, forge(CLIENT[family], size))
            told = caught.value.outcome
            assert (told.verdict, told.detail) == ("wrong", "port closed")
            with pytest.raises(ProbeError) as caught:
                await outcome(world, family, probed, forge(ROUTER[family], size))
            told = caught.value.outcome
            assert told.verdict == "lost"
            assert told.detail == f"connection refused (from {ROUTER[family]})"
            with pytest.raises(NoReply, match="connection refused"):
                await outcome(world, family, queried, forge(CLIENT[family], size))

    asyncio.run(main())

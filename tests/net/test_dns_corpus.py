"""The corpus of the DNS fuzz is what real programs send: dig and kdig in every case of dns_cases,
and unbound on its way down from the root.

client ── core ─┬─ isp-a ── wan0 ┐
  unbound, BIND └─ isp-b ── wan1 ┴ host     a frontend; a packet socket hears what it is asked
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from ifdefault.lab import dns, lookup
from ifdefault.lab.node import Node
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.dns_cases import CASES, ZONE, A, zone
from tests.net.served import serving

CAPTURED = Path(__file__).parents[1] / "corpus" / "dns_captured.txt"
_ETH_P_ALL, _SO_RCVBUFFORCE = 0x0003, 33
_HEAD = """\
# Queries over UDP, as a packet socket heard them: hexadecimal, with ID and client cookies of zeros.
# Written by tests/net/test_dns_corpus.py with --golden-update.
"""


def hear(node: Node) -> socket.socket:
    """Everything that comes to a node from now on."""
    with node.enter():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
    tap.setblocking(False)
    return tap


def queries(tap: socket.socket) -> set[bytes]:
    """What came to UDP port 53 meanwhile."""
    found: set[bytes] = set()
    while True:
        try:
            packet, _ = tap.recvfrom(65536)
        except BlockingIOError:
            return found
        head = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
        protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
        if protocol == socket.IPPROTO_UDP and packet[head + 2 : head + 4] == b"\0\x35":
            found.add(constant(packet[head + 8 :]))


def constant(query: bytes) -> bytes:
    """A query without what is another each time: its ID, and the client's half of a cookie."""
    edns = query.find(b"\0\0\x29", 12)  # OPT, with its owner
    at = query.find(b"\0\x0a\0\x08", edns) if edns >= 0 else -1
    if at >= 0:
        query = query[: at + 4] + bytes(8) + query[at + 12 :]
    return bytes(2) + query[2:]


def known() -> set[bytes]:
    lines = CAPTURED.read_text(encoding="utf-8").splitlines() if CAPTURED.exists() else []
    return {bytes.fromhex(line) for line in lines if not line.startswith("#")}


async def _ask_all(world: World) -> set[bytes]:
    async with serving(world) as server:
        server.publish(zone())
        dns.start(world)
        with hear(world["host"]) as tap:
            for case in CASES:
                await server.ask(*case.argv(A))
            for name in (ZONE, f"nowhere.{ZONE}", f"ns-isp-a.{ZONE}"):
                await asyncio.to_thread(resolve, world, name)
            return queries(tap)


def resolve(world: World, name: str) -> None:
    world["client"].python(lambda: lookup.resolve_both(dns.RESOLVER[0], name, timeout_s=20.0))


def test_what_programs_send_is_in_the_corpus(
    lab_world: LabWorld, request: pytest.FixtureRequest
) -> None:
    heard = asyncio.run(_ask_all(lab_world("two")))
    assert len(heard) > 30
    if request.config.getoption("--golden-update"):
        lines = sorted(query.hex() for query in heard | known())
        CAPTURED.write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    new = heard - known()  # who asks once more after a loss may do so in another form
    assert len(new) <= 3, "something else is sent: run again with --golden-update"

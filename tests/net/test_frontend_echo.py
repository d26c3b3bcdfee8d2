"""ICMP echo as the frontend hears it: late, forged, and in floods. This process plays the client.

         ┌─ isp-a ── wan0 ┐
client ──┤                ├ host     the client's kernel answers no echo; we do, or somebody does
         └─ isp-b ── wan1 ┘          who shouldn't
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.config import Family
from tests.net.conftest import LabWorld
from tests.net.test_frontend import BRIEF_MS, CLIENT, FAMILIES, OWN, Talk, stopped, talking

OTHER: dict[Family, str] = {4: "198.18.1.11", 6: "2001:db8:f:1::11"}
QUIET = {4: "net.ipv4.icmp_echo_ignore_all", 6: "net.ipv6.icmp.echo_ignore_all"}
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
BODY = 8  # an echo's header; RFC 792, RFC 4443


def changed(packet: bytes, at: int) -> bytes:
    """The packet with another byte at a place."""
    return packet[:at] + bytes([packet[at] ^ 0xFF]) + packet[at + 1 :]


class Client:
    """Answers by hand, from two of the client's addresses."""

    def __init__(self, world: World, family: Family) -> None:
        self._family = family
        world["client"].sysctl(QUIET[family], 1)

        def listen(address: str) -> Callable[[], socket.socket]:
            def make() -> socket.socket:
                af = socket.AF_INET if family == 4 else socket.AF_INET6
                sock = socket.socket(af, socket.SOCK_RAW, PROTOCOL[family])
                sock.settimeout(60)
                sock.bind((address, 0))
                return sock

            return make

        self._own, self._other = (
            world["client"].python(listen(address[family])) for address in (CLIENT, OTHER)
        )

    def close(self) -> None:
        self._own.close()
        self._other.close()

    def request(self) -> bytes:
        """The next echo request that comes in, without an IP header."""
        while True:
            data = self._own.recv(2048)
            packet = data[(data[0] & 15) * 4 :] if self._family == 4 else data
            if packet[0] == REQUEST[self._family]:
                return packet

    def reply(self, request: bytes, *, other: bool = False) -> None:
        packet = bytes([REPLY[self._family], 0, 0, 0]) + request[4:]
        if self._family == 4:
            total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
            total = (total & 0xFFFF) + (total >> 16)
            checksum = ~(total + (total >> 16)) & 0xFFFF
            packet = packet[:2] + struct.pack("!H", checksum) + packet[4:]
        (self._other if other else self._own).sendto(packet, (OWN[self._family], 0))


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


def play(
    world: World, family: Family, part: Callable[[Talk, Client], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        client = Client(world, family)
        try:
            async with talking(world) as talk:
                talk.bind(1, family)
                await part(talk, client)
        finally:
            client.close()

    asyncio.run(main())


def test_a_late_answer_repairs(lab_world: LabWorld, family: Family) -> None:
    async def part(talk: Talk, client: Client) -> None:
        seq = talk.send("icmp", CLIENT[family], timeout_ms=BRIEF_MS)
        request = client.request()
        assert (await talk.outcome(seq)).verdict == "lost"
        client.reply(request)
        late = await talk.outcome(seq, 2)
        assert (late.verdict, late.detail) == ("answered", "late")
        assert late.rtt_us >= BRIEF_MS * 1000

    play(lab_world("two"), family, part)


def test_a_forged_answer_is_none(lab_world: LabWorld, family: Family) -> None:
    async def part(talk: Talk, client: Client) -> None:
        first = talk.send("icmp", CLIENT[family])
        asked = client.request()
        second = talk.send("icmp", CLIENT[family])
        also = client.request()
        client.reply(asked, other=True)
        for place in (4, 6, BODY, BODY + 8):  # identifier, sequence, token, number
            client.reply(changed(asked, place))
        client.reply(asked[: BODY + 8])
        client.reply(asked[:4] + also[4:8] + asked[8:])  # one probe's answer as another's
        client.reply(also)  # comes after those
        assert (await talk.outcome(second)).verdict == "answered"
        assert not talk.outcomes(first)
        for _ in range(2):  # a duplicate is no second answer
            client.reply(asked)
        assert (await talk.outcome(first)).verdict == "answered"
        third = talk.send("icmp", CLIENT[family])
        client.reply(client.request())
        assert (await talk.outcome(third)).verdict == "answered"
        assert len(talk.outcomes(first)) == 1

    play(lab_world("two"), family, part)


def test_a_face_that_was_stopped_condemns_nobody(lab_world: LabWorld, family: Family) -> None:
    async def part(talk: Talk, client: Client) -> None:
        seq = talk.send("icmp", CLIENT[family], timeout_ms=BRIEF_MS)
        request = client.request()
        with stopped(talk.frontend.pid):
            client.reply(request)
            over_s = time.monotonic() + BRIEF_MS / 1000
            eventually(lambda: time.monotonic() > over_s, what="the timeout")
        outcome = await talk.outcome(seq)
        assert (outcome.verdict, outcome.detail) == ("answered", "")

    play(lab_world("two"), family, part)


def test_a_flood_of_answers_doesnt_wake_it(lab_world: LabWorld, family: Family) -> None:
    """Its token is in none of them: the kernel drops them, and none is in an answer's way."""
    world = lab_world("two")
    flood = 2000

    def came() -> int:
        """Echo replies that the host's kernel has seen."""
        name, file = {4: ("InEchoReps", "snmp"), 6: ("Icmp6InEchoReplies", "snmp6")}[family]
        text = world["host"].python(Path(f"/proc/thread-self/net/{file}").read_text)
        if family == 6:
            return int(text.partition(name)[2].split()[0])
        names, values = (row.split() for row in text.splitlines() if row.startswith("Icmp:"))
        return int(dict(zip(names, values, strict=True))[name])

    def switches(pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)
        assert found
        return int(found[1])

    async def part(talk: Talk, client: Client) -> None:
        seq = talk.send("icmp", CLIENT[family])
        asked = client.request()
        forged = changed(asked, BODY)
        await talk.settled()
        seen, before = came(), switches(talk.frontend.pid)
        for _ in range(flood):
            client.reply(forged)
        eventually(lambda: came() >= seen + flood, what="the flood has come")
        client.reply(asked)
        assert (await talk.outcome(seq)).verdict == "answered"
        assert switches(talk.frontend.pid) - before < 20

    play(world, family, part)

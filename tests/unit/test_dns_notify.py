"""NOTIFY: by which uplinks, how often, and when it ends."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.tsig
import pytest

from ifdefault.dns import tsig
from ifdefault.dns.tsig_key import LoadedKey
from ifdefault.frontend.server import notify
from ifdefault.frontend.server.notify import NotifySender, Secondary
from ifdefault.model.config import Family

ADDRESS = "192.0.2.53"
SECONDARY = Secondary(ADDRESS, 5353)
KEY = LoadedKey("k.example", "hmac-sha256", b"secret")
AGAIN_S = 0.001


class Way:
    """A socket that records what is sent, and where."""

    def __init__(self, uplink: str, sent: list[tuple[str, bytes, tuple[str, int]]]) -> None:
        self.uplink, self.sent, self.broken = uplink, sent, False

    def sendto(self, data: bytes, where: tuple[str, int]) -> None:
        self.sent.append((self.uplink, data, where))
        if self.broken:
            raise OSError(101, "network is unreachable")


class Stage:
    """A notifier whose packets are only recorded."""

    def __init__(self, *uplinks: str) -> None:
        self.sent: list[tuple[str, bytes, tuple[str, int]]] = []
        self.told: list[str] = []
        self.ways = [Way(uplink, self.sent) for uplink in uplinks]
        self.notifier = NotifySender(self._ways, self.told.append)

    def _ways(self, family: Family) -> Iterator[tuple[str, socket.socket]]:
        found: Any = [(way.uplink, way) for way in self.ways if family == 4]
        return iter(found)

    @property
    def uplinks(self) -> list[str]:
        return [uplink for uplink, _, _ in self.sent]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                await asyncio.sleep(0)

    async def until_told(self) -> None:
        async with asyncio.timeout(10):
            while not self.told:
                await asyncio.sleep(0)

    def answer(
        self,
        rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
        client: str = ADDRESS,
        attempt: int = -1,
    ) -> None:
        reply = dns.message.make_response(dns.message.from_wire(self.sent[attempt][1]))
        reply.set_rcode(rcode)
        self.notifier.receive(reply.to_wire(), client)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_WAITS_S", (AGAIN_S,) * 5)


def test_the_message() -> None:
    async def main() -> None:
        stage = Stage("isp-a")
        stage.notifier.notify(SECONDARY, "www.example", 7, [])
        ((_, data, where),) = stage.sent
        stage.notifier.close()
        message = dns.message.from_wire(data)
        assert where == (ADDRESS, 5353)
        assert message.opcode() == dns.opcode.NOTIFY
        assert message.flags & dns.flags.AA
        assert str(message.question[0]) == "www.example. IN SOA"

    asyncio.run(main())


def test_it_is_signed_if_there_is_a_key() -> None:
    async def main() -> None:
        stage = Stage("isp-a")
        stage.notifier.notify(Secondary(ADDRESS, 53, KEY), "www.example", 7, [])
        stage.notifier.close()
        key = dns.tsig.Key(KEY.name, KEY.secret, KEY.algorithm)
        assert dns.message.from_wire(stage.sent[0][1], keyring=key).had_tsig

    asyncio.run(main())


def test_with_a_key_an_answer_must_be_signed() -> None:
    async def main() -> None:
        stage = Stage("isp-a")
        stage.notifier.notify(Secondary(ADDRESS, 53, KEY), "www.example", 7, [])
        asked = stage.sent[0][1]
        plain, signature = tsig.split(asked)
        assert signature is not None
        answer = plain[:2] + bytes([plain[2] | 0x80]) + plain[3:]
        other = LoadedKey(KEY.name, KEY.algorithm, b"another")
        now = time.time()
        for forged in (
            answer,
            answer + b"?",
            tsig.Signer(other, signature.mac).sign(answer, now),
            tsig.Signer(KEY).sign(answer, now),  # not for this query
        ):
            stage.notifier.receive(forged, ADDRESS)
            assert stage.notifier._notices
        stage.notifier.receive(tsig.Signer(KEY, signature.mac).sign(answer, now), ADDRESS)
        assert not stage.notifier._notices

    asyncio.run(main())


def test_each_time_by_another_way_and_then_no_more() -> None:
    async def main() -> None:
        stage = Stage("isp-a", "isp-b", "isp-c")
        stage.ways[1].broken = True
        stage.notifier.notify(SECONDARY, "www.example", 7, ["isp-b", "isp-c"])
        await stage.until_told()
        assert stage.uplinks == ["isp-b", "isp-c", "isp-a", "isp-b", "isp-c"]
        assert stage.told == [f"secondary {ADDRESS}: no answer to NOTIFY of www.example, serial 7"]

    asyncio.run(main())


def test_an_answer_is_enough() -> None:
    async def main() -> None:
        stage = Stage("isp-a")
        other = Secondary("192.0.2.54", 53)
        stage.notifier.notify(SECONDARY, "www.example", 7, [])
        stage.answer(client="192.0.2.54")  # not the one that was told
        stage.answer()
        stage.notifier.notify(other, "www.example", 7, [])
        await stage.until_told()
        assert [where[0] for _, _, where in stage.sent] == [ADDRESS] + [other.address] * 5
        assert all(ADDRESS not in event for event in stage.told)

    asyncio.run(main())


REFUSED = f"secondary {ADDRESS}: answered REFUSED to NOTIFY of www.example, serial 7, over"


def test_a_refusal_is_reported_and_ends_it_where_there_is_no_other_address() -> None:
    async def main() -> None:
        stage = Stage("isp-a")
        stage.notifier.notify(SECONDARY, "www.example", 7, [])
        stage.answer(dns.rcode.REFUSED)
        stage.answer(dns.rcode.REFUSED)
        assert stage.told == [f"{REFUSED} isp-a"]
        assert stage.uplinks == ["isp-a"]

    asyncio.run(main())


def test_after_a_refusal_another_address_is_tried_at_once() -> None:
    """A secondary that knows only one of them is told over that one, with no wait before."""

    async def main() -> None:
        stage = Stage("isp-a", "isp-b", "isp-c")
        stage.notifier.notify(SECONDARY, "www.example", 7, ["isp-a", "isp-b"])
        stage.answer(dns.rcode.REFUSED)
        assert stage.uplinks == ["isp-a", "isp-b"]
        stage.answer(dns.rcode.NOTAUTH)
        assert stage.uplinks == ["isp-a", "isp-b", "isp-c"]
        stage.answer()
        assert stage.told == [f"{REFUSED} isp-a", f"{REFUSED.replace('REFUSED', 'NOTAUTH')} isp-b"]
        assert not stage.notifier._notices

    asyncio.run(main())


def test_refused_here_and_silent_there() -> None:
    """The address that was refused isn't used again; a late response counts for its own attempt."""

    async def main() -> None:
        stage = Stage("isp-a", "isp-b")
        stage.notifier.notify(SECONDARY, "www.example", 7, ["isp-a"])
        await stage.until(2)
        stage.answer(dns.rcode.REFUSED, attempt=0)
        await stage.until_told()
        await stage.until(4)
        assert stage.uplinks[:4] == ["isp-a", "isp-b", "isp-b", "isp-b"]
        stage.answer(attempt=1)
        assert not stage.notifier._notices

    asyncio.run(main())


def test_a_newer_serial_takes_its_place() -> None:
    async def main() -> None:
        stage = Stage("isp-a")
        stage.notifier.notify(SECONDARY, "www.example", 7, [])
        stage.notifier.notify(SECONDARY, "other.example", 3, [])
        stage.notifier.notify(SECONDARY, "www.example", 8, [])
        async with asyncio.timeout(10):
            while len(stage.told) < 2:
                await asyncio.sleep(0)
        assert sorted(event.rpartition("of ")[2] for event in stage.told) == [
            "other.example, serial 3",
            "www.example, serial 8",
        ]
        assert len(stage.sent) == 11

    asyncio.run(main())


def test_without_a_way_it_waits_for_one() -> None:
    async def main() -> None:
        stage = Stage()
        stage.notifier.notify(Secondary("2001:db8::53", 53), "www.example", 7, [])
        stage.notifier.notify(SECONDARY, "www.example", 7, [])
        stage.ways.append(Way("isp-a", stage.sent))
        await stage.until(1)
        stage.notifier.close()
        assert stage.uplinks == ["isp-a"]

    asyncio.run(main())


@pytest.mark.parametrize("packet", [b"", b"\0" * 11, b"\0" * 12, b"\xff" * 40])
def test_any_packet_may_come(packet: bytes) -> None:
    async def main() -> None:
        stage = Stage("isp-a")
        stage.notifier.notify(SECONDARY, "www.example", 7, [])
        stage.notifier.receive(packet, ADDRESS)
        await stage.until_told()
        assert len(stage.sent) == 5

    asyncio.run(main())

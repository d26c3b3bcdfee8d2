"""The embedded name server over UDP, as the engine tells the frontend about it.

client ── core ─┬─ isp-a ── wan0 ┐
                └─ isp-b ── wan1 ┴ host     the engine's part is this process's; the frontend is a
                                            real one, its sockets are made in the host's namespace
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ifdefault.model.dns import AddressRecord, Published
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.dns_cases import A6, ADDRESSES, B6, ZONE, A, B, zone
from tests.net.served import Server, serving, until, until_told

SHARED = {4: "203.0.113.10", 6: "2001:db8:a::10"}
MARKS = ((0x1000000, "isp-a"), (0x2000000, "isp-b"))


def test_each_uplink_names_itself_first(lab_world: LabWorld) -> None:
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone())
            for tcp in ("", "+tcp"):
                for address, first in ((A, A), (B, B), (A6, A), (B6, B)):
                    asked = f"{tcp} @{address} first.{ZONE} A"
                    assert await server.short(asked) == [first, B if first == A else A]
                    assert await server.short(f"{tcp} @{address} only.{ZONE} A") == [first]
            assert await server.short(f"@{B} +tcp missing.{ZONE} A") == []
            counts = {("isp-a", 0): 8, ("isp-b", 0): 8, ("isp-b", 3): 1}  # NOERROR, NXDOMAIN
            await until(lambda: server.queries == counts, "counts")

    asyncio.run(main())


def test_all_zones_are_swapped_at_once(lab_world: LabWorld) -> None:
    world = lab_world("two")
    first = zone(1)
    second = replace(
        zone(2),
        names=(Published(ZONE, "failover", 5, (AddressRecord("isp-b", B),)), *first.names[-2:]),
    )
    other = replace(second, zone="other.example", names=(), serial=9)

    async def main() -> None:
        async with serving(world) as server:
            server.publish(first)
            assert await server.short(f"@{A} alias.{ZONE} CNAME") == [f"{ZONE}."]
            server.publish(second, other)
            await server.settled()
            assert await server.short(f"@{A} {ZONE} A") == [B]
            assert await server.short(f"@{A} alias.{ZONE} CNAME") == []
            assert (await server.short(f"@{B} other.example SOA"))[0].split()[2] == "9"
            assert "REFUSED" in await server.ask(f"dig @{A} other.test SOA")

    asyncio.run(main())


def test_queries_wait_until_there_is_something_to_say(lab_world: LabWorld) -> None:
    """A frontend that was just started doesn't refuse what the one before it answered."""
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            await server.settled()
            commands = [f"{tcp} @{A} only.{ZONE} A" for tcp in ("", "+tcp")]
            asked = [asyncio.create_task(server.short(command)) for command in commands]
            await until_told(lambda: _waits(server), True, "a query is in the socket's queue")
            server.publish(zone())
            assert [await each for each in asked] == [[A], [A]]

    asyncio.run(main())


async def _waits(server: Server) -> bool:
    rows = (await server.ask("ss -Haun sport = :53", node="host")).splitlines()
    return any(int(row.split()[1]) for row in rows)


def test_sockets_come_and_go(lab_world: LabWorld) -> None:
    world = lab_world("two")

    async def main() -> None:
        async with serving(world, listen=False) as server:
            server.publish(zone())
            numbers = [server.listen(kind, A, ((0, "isp-a"),)) for kind in ("udp", "tcp")]
            for tcp in ("", "+tcp"):
                assert await server.short(f"{tcp} @{A} only.{ZONE} A") == [A]
            for number in numbers:
                server.unlisten(number)
            await server.settled()
            assert "refused" in await server.ask(f"dig +tcp +tries=1 @{A} {ZONE} A")
            assert "refused" in await server.ask(f"dig +tries=1 +timeout=1 @{A} {ZONE} A")
            server.listen("udp", A, ((0, "isp-b"),))
            assert await server.short(f"@{A} only.{ZONE} A") == [B]  # it believes what it is told
            server.unlisten(99)  # never heard of

    asyncio.run(main())


@pytest.mark.parametrize("family", [4, 6])
def test_one_address_for_all_uplinks(lab_world: LabWorld, family: int) -> None:
    """Packets tell by their marks which uplink they came in by."""
    world = lab_world("shared-address")
    address, kind = SHARED[family], "A" if family == 4 else "AAAA"
    sources = {4: ("198.18.1.10", "198.18.2.10"), 6: ("2001:db8:f:1::10", "2001:db8:f:2::10")}
    mine = {4: (A, B), 6: (A6, B6)}[family]

    async def main() -> None:
        async with serving(world, listen=False) as server:
            assert answers.status(world)["uplinks"]
            for transport in ("udp", "tcp"):
                server.listen(transport, address, MARKS)
            server.publish(zone())
            for source, own in zip(sources[family], mine, strict=True):
                for tcp in ("", "+tcp"):
                    asked = f"-b {source} {tcp} @{address} only.{ZONE} {kind}"
                    assert await server.short(asked) == [own], asked
            await until(lambda: server.queries == {("isp-a", 0): 2, ("isp-b", 0): 2}, "counts")

    asyncio.run(main())


def test_strangers_in_a_hurry_are_limited(lab_world: LabWorld) -> None:
    """Beyond the limit each is told to come over TCP, and none is left without a word; a cookie is
    enough."""
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone(), rate_limit=1)
            bare = f"dig +tries=1 +timeout=1 +ignore +noedns @{A}" + f" {ZONE} A" * 12
            output = await server.ask(bare)
            flags = [line for line in output.splitlines() if line.startswith(";; flags:")]
            assert len(flags) == 12
            assert sum(" tc" in line for line in flags) >= 6  # it may take some seconds
            for _ in range(3):
                assert len(await server.short(f"+tcp @{A} {ZONE} A")) == 2
            assert len(await server.short(f"+cookie +retry=2 @{A} {ZONE} A")) == 2

    asyncio.run(main())


def test_addresses_of_the_cases_are_those_of_the_world(lab_world: LabWorld) -> None:
    world = lab_world("two")
    assert sorted(ADDRESSES) == answers.addresses(world)

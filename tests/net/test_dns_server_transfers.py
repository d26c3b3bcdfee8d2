"""Secondaries: zone transfers, NOTIFY, and TSIG, with real ones.

client ── core ─┬─ isp-a ── wan0 ┐
  knotd, named  └─ isp-b ── wan1 ┴ host     the frontend serves, and tells them of new serials
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from ifdefault.dns.tsig_key import LoadedKey
from ifdefault.model.dns import Endpoint
from tests.net import secondaries
from tests.net.conftest import LabWorld
from tests.net.dns_cases import ZONE, A, B, zone
from tests.net.secondaries import KEY
from tests.net.served import Server, serving, until_told
from tests.net.test_frontend import lay

SECONDARY = "198.18.1.11"
_Y = f"-y {KEY.algorithm}:{KEY.name}:b2YgdGhlIHNlY29uZGFyaWVzIGFsb25l"


async def serial_at(server: Server, address: str) -> int:
    lines = await server.short(f"@{address} {ZONE} SOA")
    fields = lines[0].split() if lines else []
    return int(fields[2]) if len(fields) == 7 else 0


@pytest.mark.parametrize("key", [None, KEY], ids=["by address", "TSIG"])
@pytest.mark.parametrize("start", [secondaries.knot, secondaries.bind], ids=["knotd", "named"])
def test_a_secondary_follows(
    lab_world: LabWorld, start: Callable[..., Any], key: LoadedKey | None
) -> None:
    """The zone as it is at first, and each change within a moment."""
    world = lab_world("two")

    async def main(path: str) -> None:
        listed = [Endpoint(SECONDARY, 53, path)]
        async with serving(world) as server:
            server.publish(zone(1), secondaries=listed)
            await asyncio.to_thread(start, world["client"], SECONDARY, key)
            for serial in (1, 2, 3):
                if serial > 1:
                    server.publish(zone(serial), secondaries=listed)
                await until_told(
                    lambda: serial_at(server, SECONDARY), serial, f"serial {serial}", server.told
                )
                await server.event(f"secondary {SECONDARY}: transferred {ZONE}, serial {serial}")
            asked = [f"{ZONE} {kind}" for kind in "A AAAA TXT NS SOA CAA".split()]
            asked += [f"{name}.{ZONE} A" for name in ("first", "any.wild", "alias")]
            for each in asked:
                ours, theirs = [
                    sorted(await server.short(f"@{address} {each}")) for address in (A, SECONDARY)
                ]
                assert ours
                assert ours == theirs

    with ExitStack() as stack:
        main_path = str(stack.enter_context(secondaries.key_file())) if key else ""
        asyncio.run(main(main_path))


def test_a_notify_goes_by_another_uplink(lab_world: LabWorld) -> None:
    """isp-a forwards nothing any more, and the zone doesn't name it any more."""
    world = lab_world("two")
    listed = [Endpoint(SECONDARY)]

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone(1), secondaries=listed)
            await asyncio.to_thread(secondaries.knot, world["client"], SECONDARY, None)
            await until_told(lambda: serial_at(server, SECONDARY), 1, "serial 1")
            lay(world["isp-a"], "forward", "drop")
            server.publish(zone(2), secondaries=listed)
            await until_told(lambda: serial_at(server, SECONDARY), 2, "serial 2")

    asyncio.run(main())


def test_a_secondary_that_does_not_want_to_know(lab_world: LabWorld) -> None:
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            await asyncio.to_thread(
                secondaries.knot, world["client"], SECONDARY, None, heard=("192.0.2.1",)
            )
            server.publish(zone(1), secondaries=[Endpoint(SECONDARY)])
            refused = f"secondary {SECONDARY}: answered NOTAUTH to NOTIFY of {ZONE}, serial 1, over"
            for uplink in ("isp-a", "isp-b"):
                await server.event(f"{refused} {uplink}")

    asyncio.run(main())


def test_a_secondary_that_knows_one_of_our_addresses(lab_world: LabWorld) -> None:
    """It refuses the first, and is told from the other."""
    world = lab_world("two")
    listed = [Endpoint(SECONDARY)]

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone(1), secondaries=listed)
            await asyncio.to_thread(secondaries.knot, world["client"], SECONDARY, None, heard=(B,))
            for serial in (2, 3):
                server.publish(zone(serial), secondaries=listed)
                await until_told(
                    lambda: serial_at(server, SECONDARY), serial, f"serial {serial}", server.told
                )

    asyncio.run(main())


def test_who_gets_a_zone(lab_world: LabWorld) -> None:
    """By address, by key, or not at all; what is wrong is told in the DNS's own words."""
    world = lab_world("two")
    open_, keyed, stranger = "198.18.1.10", "198.18.1.11", "198.18.2.10"

    async def main(path: str) -> None:
        async with serving(world) as server:

            async def axfr(source: str, more: str = "", target: str = A) -> str:
                output = await server.ask(f"dig -b {source} {more} +tries=1 @{target} {ZONE} AXFR")
                return "all" if output.count("IN\tSOA") == 2 else output

            listed = [Endpoint(open_, 5353), Endpoint(keyed, 5353, path)]
            server.publish(zone(), secondaries=listed)
            assert await axfr(open_) == "all"
            assert await axfr(open_, target=B) == "all"
            assert await axfr(keyed, _Y) == "all"
            for refused in (await axfr(stranger), await axfr(keyed)):
                assert "Transfer failed" in refused
            wrong_secret = _Y[:-4] + "AAAA"
            wrong_name = _Y.replace("transfer", "other")
            for more, word in ((wrong_secret, "BADSIG"), (wrong_name, "BADKEY")):
                for tcp in ("", "+tcp"):
                    output = await server.ask(f"dig -b {keyed} {tcp} {more} @{A} {ZONE} SOA")
                    assert "NOTAUTH" in output
                    assert word in output
            output = await server.ask(f"dig -b {keyed} {_Y} @{A} {ZONE} SOA")
            assert "TSIG could not be validated" not in output
            assert "TSIG PSEUDOSECTION" in output
            await server.event(f"secondary {open_}: transferred {ZONE}, serial 1")
            assert not any(stranger in event for event in server.events)

    with secondaries.key_file() as path:
        asyncio.run(main(str(path)))


def test_a_key_that_cannot_be_read(lab_world: LabWorld) -> None:
    """Its secondary gets nothing, and one is told why; others aren't concerned."""
    world = lab_world("two")
    keyed, open_ = "198.18.1.11", "198.18.1.10"

    async def main(path: str, locked: str) -> None:
        async with serving(world) as server:
            listed = [Endpoint(keyed, 5353, locked), Endpoint(open_, 5353)]
            server.publish(zone(1), secondaries=listed)
            await server.event(
                f"{locked}: permission denied; make daemon.user its owner, with mode 0400"
            )
            for source, count in ((keyed, 0), (open_, 2)):
                output = await server.ask(f"dig -b {source} @{A} {ZONE} AXFR")
                assert output.count("IN\tSOA") == count
            server.publish(zone(2), secondaries=[replace(listed[0], key=path)])
            await server.settled()
            output = await server.ask(f"dig -b {keyed} {_Y} @{A} {ZONE} AXFR")
            assert output.count("IN\tSOA") == 2

    with secondaries.key_file() as path, secondaries.key_file() as locked:
        os.chown(locked, 0, 0)
        asyncio.run(main(str(path), str(locked)))

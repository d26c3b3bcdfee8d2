"""HTTP/3 by a real server on every address of every uplink.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host: caddy on :443/udp
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from ifdefault.lab import http3, ports, services
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld

BOUND = pytest.mark.parametrize("bound", [False, True], ids=["wildcard", "bound"])
REQUESTS = 40


def _serving(lab_world: LabWorld, topology: str, bound: bool) -> World:
    world = lab_world(topology)
    services.caddy(world["host"], world.topology.addresses("host") if bound else ())
    return world


@BOUND
@pytest.mark.parametrize("topology", ["two", "many-addresses", "shared-address", "v6only"])
def test_http3_on_every_address(lab_world: LabWorld, topology: str, bound: bool) -> None:
    world = _serving(lab_world, topology, bound)
    assert [t for t in answers.ask(world, ["quic"], count=4, timeout_s=1.0) if not t.ok]
    answers.apply(world)
    answers.assert_answered(world, ["quic"], count=4)
    redirected = answers.status(world)["redirected_udp"]
    assert redirected == ([] if bound or topology == "shared-address" else [ports.QUIC])


@BOUND
@pytest.mark.parametrize("target", ["198.51.100.10", "2001:db8:b::10"])
def test_a_connection_lives_on(lab_world: LabWorld, bound: bool, target: str) -> None:
    """Also while we apply again, and the default moves to another uplink and back."""
    world = _serving(lab_world, "two", bound)
    answers.apply(world)
    config = world.topology.config
    moved = config.replace('interface = "wan0"', 'interface = "wan0"\nrank = 1')

    def apply(text: str) -> None:
        world.config.write_text(text, encoding="utf-8")
        answers.apply(world)

    async def live() -> list[int]:
        source = "2001:db8:f:1::10" if ":" in target else "198.18.1.10"
        async with AsyncExitStack() as stack:
            with world["client"].enter():  # this thread: sockets stay where they were made
                session = http3.connected(target, ports.QUIC, source)
                client = await stack.enter_async_context(session)
            statuses = []
            for number in range(REQUESTS):
                if number in (10, 20, 30):
                    await asyncio.to_thread(apply, moved if number == 10 else config)
                statuses.append(await client.request())
            return statuses

    before = world.misrouted()
    assert asyncio.run(asyncio.wait_for(live(), PATIENCE_S)) == [200] * REQUESTS
    assert world.misrouted() == before

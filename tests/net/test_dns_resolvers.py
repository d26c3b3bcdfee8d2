"""The name server, and resolvers that ask for more names a second than its rate limit.

client ── core ─┬─ isp-a ── wan0 ┐
      a resolver└─ isp-b ── wan1 ┴ host     the frontend serves, with the default rate limit; a root
                                            and a parent in the core delegate to it
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from bench import resolvers
from ifdefault.lab import dns
from ifdefault.model.dns import ServerConfig
from tests.net.conftest import LabWorld
from tests.net.dns_cases import ZONE, zone
from tests.net.served import serving

RATE, BURST_S = 800, 2.0


@pytest.mark.parametrize("resolver", resolvers.RESOLVERS)
def test_a_resolver_in_a_hurry_is_never_turned_away(lab_world: LabWorld, resolver: str) -> None:
    """Beyond the limit it uses TCP; a silent server would soon not be asked any more."""
    world = lab_world("two")
    dns.start(world)
    address = resolvers.RESOLVERS[resolver](world)

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone(), rate_limit=ServerConfig().rate_limit)
            look_up = partial(resolvers.look_up, address, f"wild.{ZONE}")
            for rate, seconds in ((10, 0.5), (RATE, BURST_S), (10, 1.0)):
                ask = partial(look_up, rate, seconds)
                found = await asyncio.to_thread(world["client"].python, ask)
                assert (found.names, found.failed) == (int(rate * seconds), 0), found

    asyncio.run(main())

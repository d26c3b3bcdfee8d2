"""Four resolvers that ask for more names a second than the name server's rate limit.

client ── core ─┬─ isp-a ── wan0 ┐
 four resolvers └─ isp-b ── wan1 ┴ host     the frontend serves, with the default rate limit; a root
                                            and a parent in the core delegate to it
"""

from __future__ import annotations

import asyncio
from functools import partial

from bench.four_resolvers import RESOLVERS, FourResolvers
from ifdefault.lab import dns
from ifdefault.model.dns import ServerConfig
from tests.net.conftest import LabWorld
from tests.net.dns_cases import ZONE, zone
from tests.net.served import serving

LIMIT = ServerConfig().rate_limit


def test_resolvers_in_a_hurry_are_never_turned_away(lab_world: LabWorld) -> None:
    """Beyond the limit they use TCP; a silent server would soon not be asked any more."""
    world = lab_world("two")
    dns.start(world)
    four = FourResolvers(world)

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone(), rate_limit=LIMIT)
            await asyncio.to_thread(four.await_resolved, ZONE)
            for per_s, for_s in ((10, 0.5), (3 * LIMIT, 2.0), (10, 1.0)):
                run = partial(four.run, f"wild.{ZONE}", for_s, per_s=per_s)
                outcomes = await asyncio.to_thread(run)
                assert [*outcomes] == [each.name for each in RESOLVERS]
                for each in outcomes.values():
                    assert each.lookups >= per_s * for_s / 2
                    assert not each.failed, [f"{k}: {v}" for k, v in outcomes.items()]

    asyncio.run(main())


def test_failures_are_counted(lab_world: LabWorld) -> None:
    """Names that aren't there, and a server that isn't: resolvers say so, or nothing in time."""
    world = lab_world("two")
    dns.start(world)
    four = FourResolvers(world)
    for parent, reasons in (("example", {"NXDOMAIN"}), (ZONE, {"SERVFAIL", "timeout"})):
        for each in four.run(parent, 0.2).values():
            assert each.failed == each.lookups > 0
            assert {failure.why for failure in each.failures} <= reasons

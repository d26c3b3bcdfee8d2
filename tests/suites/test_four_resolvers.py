"""unbound, Knot Resolver, PowerDNS Recursor and BIND resolve the host's names, and are counted.

client ── core: four resolvers, root, parent ─┬─ isp-a ── wan0 ┐
                                              └─ isp-b ── wan1 ┴ host: ifdefault run
"""

from __future__ import annotations

from bench.four_resolvers import RESOLVERS, FourResolvers
from ifdefault.lab import dns
from ifdefault.lab.faults import injected
from tests.net.conftest import LabWorld
from tests.net.dns_cases import ZONE
from tests.net.test_dns_daemon import DNS, serve

WILDCARD = f'[[dns.name]]\nname = "*.{ZONE}"\n'


def test_new_names_are_looked_up_by_each_and_failures_counted(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world, WILDCARD + DNS)
    dns.start(world)
    four = FourResolvers(world)
    four.await_resolved(ZONE)
    well = four.run(ZONE, 2.0)
    assert list(well) == [resolver.name for resolver in RESOLVERS]
    assert all(outcome.lookups >= 20 for outcome in well.values())
    assert not any(outcome.failed for outcome in well.values()), list(map(str, well.values()))
    with injected(world, "blackhole", "isp-a"), injected(world, "blackhole", "isp-b"):
        dead = four.run(ZONE, 0.2)
    assert all(outcome.failed == outcome.lookups for outcome in dead.values())
    assert four.run(ZONE.replace("www", "none"), 0.1)["BIND"].failures[0].why == "NXDOMAIN"

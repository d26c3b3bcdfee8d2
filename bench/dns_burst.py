"""`dns_burst`: resolvers that query for more names a second than `rate_limit`.

Rules: the daemon has its default rate limit. A lookup fails if the resolver says so, or is silent
for as long as a client waits.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.four_resolvers import FourResolvers
from bench.results import Figure, Report, Table
from ifdefault.lab import dns
from ifdefault.lab.clients_by_name import LOOKUP_S
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.world import World
from ifdefault.model.dns import ServerConfig

_RATE, _BURST_S = 800, 8.0
_CALM_RATE, _CALM_S = 2, 30.0
_CONFIG = f"""
[[dns.name]]
name = "*.{ZONE}"
[dns.server]
zones = ["{ZONE}"]
"""
_HOW = f"""\
The lab's world `two`, with a root, a parent and four resolvers in the core, each in a /24 and a /56
of its own; the daemon serves the zone with the default `rate_limit`, {ServerConfig().rate_limit}
responses a second to a network. A client asks each resolver for {_RATE} new names a second for
{_BURST_S:g} s, and then for {_CALM_RATE} a second for {_CALM_S:g} s. It asks once, and waits for
{LOOKUP_S:g} s. PowerDNS Recursor would stop querying a server for a minute after 64 queries without
response."""


def run() -> Report:
    figures: list[Figure] = []
    rows: list[tuple[str, ...]] = []
    samples: dict[str, Any] = {}
    with World.up(load("two")) as world:
        daemon = Daemon(world, f"{two_uplinks()}{_CONFIG}")
        daemon.start()
        dns.start(world)
        four = FourResolvers(world)
        bursts = four.run(ZONE, _BURST_S, per_s=_RATE)
        calms = four.run(ZONE, _CALM_S, per_s=_CALM_RATE)
        daemon.stop()
    for name, burst in bursts.items():
        calm = calms[name]
        log(f"{name}: {burst}; then {calm}")
        samples[name] = {"burst": asdict(burst), "afterwards": asdict(calm)}
        figures += [
            Figure(f"{name}: failed lookups in the burst", burst.failed, "", 0),
            Figure(f"{name}: failed lookups afterwards", calm.failed, "", 0),
        ]
        rows.append((name, str(burst.lookups), str(burst.failed), f"{burst.slowest_s:.2f} s"))
    table = Table("The burst", ("resolver", "lookups", "failed", "slowest"), tuple(rows))
    return Report("Resolvers beyond the rate limit", _HOW, tuple(figures), (table,), samples)

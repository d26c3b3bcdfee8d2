"""`dns_burst`: resolvers that query for more names a second than `rate_limit`.

Rules: the daemon has its default rate limit. A lookup fails if the resolver says so, or is silent
although it was asked four times.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from bench import resolvers
from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.resolvers import Lookups
from bench.results import Figure, Report, Table
from ifdefault.lab import dns
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
The lab's world `two`, with a root, a parent and a resolver in the core, each resolver in a world of
its own; the daemon serves the zone with the default `rate_limit`, {ServerConfig().rate_limit}
responses a second to a network. A client asks the resolver for {_RATE} new names a second for
{_BURST_S:g} s, and then for {_CALM_RATE} a second for {_CALM_S:g} s. It asks again after
{resolvers.AGAIN_S:g} s, {resolvers.TRIES} times at most. PowerDNS Recursor would stop querying a
server for a minute after 64 queries without response."""


def run() -> Report:
    figures: list[Figure] = []
    rows: list[tuple[str, ...]] = []
    samples: dict[str, Any] = {}
    for name in resolvers.RESOLVERS:
        burst, calm = _resolve(name)
        log(f"{name}: {burst.failed} of {burst.names} fail, then {calm.failed} of {calm.names}")
        samples[name] = {"burst": asdict(burst), "afterwards": asdict(calm)}
        figures += [
            Figure(f"{name}: failed lookups in the burst", burst.failed, "", 0),
            Figure(f"{name}: failed lookups afterwards", calm.failed, "", 0),
        ]
        cells = (burst.names, burst.refused, burst.silent)
        rows.append((name, *(f"{cell:,}" for cell in cells)))
    table = Table("The burst", ("resolver", "lookups", "errors", "silent"), tuple(rows))
    return Report("Resolvers beyond the rate limit", _HOW, tuple(figures), (table,), samples)


def _resolve(name: str) -> tuple[Lookups, Lookups]:
    """The lookups of the burst, and those after it."""
    with World.up(load("two")) as world:
        daemon = Daemon(world, f"{two_uplinks()}{_CONFIG}")
        daemon.start()
        dns.start(world)
        address = resolvers.RESOLVERS[name](world)
        look_up = partial(resolvers.look_up, address, ZONE)
        client = world["client"]
        burst = client.python(partial(look_up, _RATE, _BURST_S))
        calm = client.python(partial(look_up, _CALM_RATE, _CALM_S))
        daemon.stop()
        return burst, calm

"""`dns_restart`: what restarts, crashes and upgrades cost those who ask the DNS server.

Rules: queries are sent at a fixed rate, each once, from before the first event to after the last.
One is late if it has no answer after LIMIT_S. An event is over when the engine's successor has the
DNS server, of its own version.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import peers_dns
from bench.clock import log
from bench.daemon import two_uplinks
from bench.four_resolvers import FourResolvers
from bench.replaced import ReplacedDaemon
from bench.results import Figure, Report, Table
from ifdefault.lab import dns
from ifdefault.lab.dns_load import DnsLoad, Outcome
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.world import World

LIMIT_S = 0.5
_RATE = 200.0
_PAUSE_S = 1.0  # after each event
_EVENTS = (("restart", 20), ("kill", 10), ("upgrade", 3))
_REPLACED = 20
_PEERS_NAME = peers_dns.NAMESERVER
_PER_S = 10.0  # look-ups by each resolver
_CONFIG = f"""
[[dns.name]]
name = "{ZONE}"
[[dns.name]]
name = "*.{ZONE}"
[dns.server]
zones = ["{ZONE}"]
rate_limit = 0
"""
_HOW = f"""\
The lab's world `two` with `ifdefault run`. A client queries the host's four addresses {_RATE:g}
times a second, every fourth time over TCP, while the daemon is restarted by SIGTERM
({_EVENTS[0][1]} times), killed with SIGKILL and started again ({_EVENTS[1][1]} times), and replaced
by one of another version ({_EVENTS[2][1]} times). Meanwhile four recursive resolvers look up
{_PER_S:g} new names a second each. *Late*: no answer within {LIMIT_S:g} s, or the port was closed.
**gdnsd** is queried likewise during {_REPLACED} runs of `gdnsdctl replace`, in the same world. No
`rate_limit`, because all queries come from one client."""


@contextmanager
def _asked(world: World, addresses: list[str], name: str) -> Iterator[DnsLoad]:
    queries = DnsLoad(world["client"], addresses, name, rate=_RATE)
    queries.start()
    try:
        yield queries
    finally:
        queries.stop()


def run() -> Report:
    figures: list[Figure] = []
    rows: list[tuple[str, ...]] = []
    samples: dict[str, Any] = {}

    def add(subject: str, queries: DnsLoad, target: float | None) -> None:
        for transport, outcome in zip(("UDP", "TCP"), queries.outcomes, strict=True):
            log(f"{subject}, {transport}: {_text(outcome)}")
            late = outcome.late(LIMIT_S)
            figures.append(Figure(f"{subject}: queries late, {transport}", late, "", target))
            longest_s = max(outcome.waits_s)
            rows.append(
                (subject, transport, str(outcome.asked), str(late), f"{longest_s * 1000:.0f} ms")
            )
            samples[f"{subject} | {transport}"] = asdict(outcome)

    with World.up(load("two")) as world, tempfile.TemporaryDirectory() as packages:
        engine = ReplacedDaemon(world, f"{two_uplinks()}{_CONFIG}", Path(packages))
        engine.start()
        dns.start(world)
        resolvers = FourResolvers(world)
        resolvers.await_resolved(ZONE)
        lookups = resolvers.look_up(ZONE, per_s=_PER_S)
        own = [target.address for target in world.topology.targets()]
        for what, count in _EVENTS:
            with _asked(world, own, ZONE) as queries:
                for _ in range(count):
                    getattr(engine, what)()
                    time.sleep(_PAUSE_S)
            add(f"{count} {what}s", queries, 0)
        outcomes = lookups.stop()
        engine.end(signal.SIGINT)
        with _gdnsd(world) as control, _asked(world, [*peers_dns.OUTSIDE], _PEERS_NAME) as queries:
            for _ in range(_REPLACED):
                world["core"].run([*control, "replace"])
                time.sleep(_PAUSE_S)
        add(f"gdnsd, {_REPLACED} replaces", queries, None)
    for name, outcome in outcomes.items():
        log(f"{name}: {outcome}")
        figures.append(Figure(f"{name}: failed look-ups", outcome.failed, "", 0))
        row = (name, "", str(outcome.lookups), str(outcome.failed), f"{outcome.slowest_s:.2f} s")
        rows.append(row)
        samples[name] = asdict(outcome)
    heads = ("", "", "queries", "late or failed", "longest")
    table = Table("By what happened", heads, tuple(rows))
    return Report("DNS through restarts", _HOW, tuple(figures), (table,), samples)


def _text(outcome: Outcome) -> str:
    return f"{outcome.late(LIMIT_S)} of {outcome.asked} late, longest {max(outcome.waits_s):.3f} s"


@contextmanager
def _gdnsd(world: World) -> Iterator[list[str]]:
    """Run it in the core; yield the command that controls it."""
    core = peers_dns.settle_outside(world)
    peers_dns.gdnsd(core, peers_dns.OUTSIDE, 53, peers_dns.apex(10))
    control = ["gdnsdctl", "-c", str(world.dir / "gdnsd-core")]
    try:
        yield control
    finally:
        core.run([*control, "stop"])  # the last one isn't the world's child

"""`dns_shared`: two hosts publish one name by RFC 2136; is the record set right in the end?

Rules: the hosts are processes in different namespaces, with the daemon's code for updates and their
own state. The bench tells each host what to publish, so it knows the right record set.
DNS_SHARED_STEPS and DNS_SHARED_SEED set the number of steps and the seed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.query

from bench import peers_dns
from bench.clock import log
from bench.dns_updater import Publication
from bench.results import Figure, Report, Table
from bench.stats import median
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.dns import Endpoint
from ifdefault.model.health import Way

_STEPS = int(os.environ.get("DNS_SHARED_STEPS", "1000"))
_SEED = int(os.environ.get("DNS_SHARED_SEED", "1997"))
_CHECK_EVERY = 100  # steps between two checks
_PAUSE_S = 0.04  # at most, between two steps
_TTLS = (30, 5)
_SERVER = peers_dns.OUTSIDE[0]
_THEIRS = "192.0.2.99"  # of neither host
_SERVERS: dict[str, Callable[[World], None]] = {
    "BIND": peers_dns.bind_updated,
    "Knot": peers_dns.knot_updated,
}
_ROOT = Path(__file__).parents[1]
_HOW = f"""\
The lab's world `two`, with BIND, then Knot, in the core. Two hosts, each a process in its own
namespace with four addresses, two of each family, publish one name's A and AAAA records by RFC 2136
with TSIG. In each of {_STEPS} steps (seed {_SEED}) one of them, picked at random, loses or regains
an address, or changes the TTL, up to {_PAUSE_S * 1000:g} ms after the step before, so that their
updates overlap. After one step in 50 that host is killed (SIGKILL) and restarted with its state on
disk. The name also has a record of a third party. Every {_CHECK_EVERY} steps the bench waits until
both hosts have settled, and compares the server's record set."""


@dataclass(slots=True)
class Host:
    """A host: its addresses, and the process that publishes them."""

    world: World
    node: str
    ways: tuple[Way, ...]
    own: tuple[str, ...]
    key: str
    ttl: int = 30
    up: set[str] = field(default_factory=set)
    kills: int = 0
    child: Any = None

    def start(self) -> None:
        state = self.world.dir / f"updating-{self.node}"
        command = [sys.executable, "-m", "bench.dns_updater", str(state)]
        env = {"PYTHONPATH": os.pathsep.join((str(_ROOT), *sys.path))}
        pipe = subprocess.PIPE
        self.child = self.world[self.node].popen(command, stdin=pipe, stdout=pipe, env=env)
        self.publish()

    def publish(self) -> None:
        servers = {ZONE: [Endpoint(_SERVER, 53, self.key)]}
        self._send(Publication(servers, {ZONE: sorted(self.up)}, self.ways, self.ttl).to_line())

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()
        self.kills += 1
        self.start()

    def settle(self) -> None:
        """Return when everything it publishes is at the server, and verified."""
        self._send("settle\n")
        answer = self.child.stdout.readline().strip()
        if answer != "settled":
            raise RuntimeError(f"{self.node} doesn't settle: {answer}")

    def _send(self, line: str) -> None:
        self.child.stdin.write(line)
        self.child.stdin.flush()


@dataclass(frozen=True, slots=True)
class Check:
    """The record set when both hosts have settled."""

    steps: int
    expected: tuple[str, ...]
    served: tuple[str, ...]
    took_s: float  # until they had settled

    @property
    def wrong(self) -> bool:
        return self.expected != self.served


def run() -> Report:
    figures: list[Figure] = []
    rows: list[tuple[str, ...]] = []
    samples: dict[str, Any] = {}
    for name, start in _SERVERS.items():
        checks, kills = _share(name, start)
        samples[name] = {"kills": kills, "checks": list(map(asdict, checks))}
        figures += [
            Figure(f"{name}: steps", checks[-1].steps, "", _STEPS, at_least=True),
            Figure(f"{name}: wrong record sets", sum(check.wrong for check in checks), "", 0),
        ]
        took_s = [check.took_s for check in checks]
        cells = (f"{len(checks)}", f"{kills}", f"{median(took_s):.2f} s", f"{max(took_s):.2f} s")
        rows.append((name, str(checks[-1].steps), *cells))
    heads = ("server", "steps", "checks", "kills", "until settled, median", "longest")
    table = Table("Each server", heads, tuple(rows))
    return Report("Two hosts sharing a name", _HOW, tuple(figures), (table,), samples)


def _share(name: str, start: Callable[[World], None]) -> tuple[list[Check], int]:
    """All steps at one server: the checks, and how often a host was killed."""
    dice = random.Random(_SEED)
    with World.up(load("two")) as world, peers_dns.key_file() as key:
        start(world)
        eventually(lambda: _ask(world, "SOA"), 20, what="the zone is loaded")
        _add_theirs(world)
        hosts = _hosts(world, str(key))
        for host in hosts:
            host.start()
        checks = []
        for step in range(1, _STEPS + 1):
            host = dice.choice(hosts)
            if dice.random() < 0.1:
                host.ttl = dice.choice(_TTLS)
            else:
                host.up ^= {dice.choice(host.own)}
                host.up = host.up or {dice.choice(host.own)}  # never the last one
            host.publish()
            time.sleep(dice.uniform(0, _PAUSE_S))
            if dice.random() < 0.02:
                host.kill()
            if step % _CHECK_EVERY == 0 or step == _STEPS:
                checks.append(_check(world, hosts, step))
                log(f"{name}: {step} steps, {sum(check.wrong for check in checks)} wrong")
        return checks, sum(host.kills for host in hosts)


def _hosts(world: World, key: str) -> tuple[Host, Host]:
    first = ("203.0.113.10", "198.51.100.10", "2001:db8:a::10", "2001:db8:b::10")
    second = ("203.0.113.20", "198.51.100.20", "2001:db8:a::20", "2001:db8:b::20")
    ways = (Way("isp-a", 4, first[0], "wan0", 0), Way("isp-b", 4, first[1], "wan1", 0))
    far = (Way("isp-c", 4, "198.18.1.10", "net0", 0), Way("isp-d", 4, "198.18.1.11", "net0", 0))
    return (
        Host(world, "host", ways, first, key, up=set(first)),
        Host(world, "client", far, second, key, up=set(second)),
    )


def _check(world: World, hosts: tuple[Host, Host], step: int) -> Check:
    start_s = time.monotonic()
    for host in hosts:
        host.settle()
    took_s = time.monotonic() - start_s
    expected = sorted(hosts[0].up | hosts[1].up | {_THEIRS})
    served = sorted(_ask(world, "A") + _ask(world, "AAAA"))
    return Check(step, tuple(expected), tuple(served), took_s)


def _ask(world: World, kind: str) -> list[str]:
    def ask() -> list[str]:
        query = dns.message.make_query(ZONE, kind, flags=dns.flags.Flag(0))
        answer = dns.query.udp(query, _SERVER, timeout=5)
        return [str(record) for rrset in answer.answer for record in rrset]

    return world["core"].python(ask)


def _add_theirs(world: World) -> None:
    key = f"hmac-sha256:{peers_dns.KEY_NAME}:{peers_dns.SECRET}"
    lines = f"server {_SERVER}\nzone {ZONE}\nupdate add {ZONE} 30 A {_THEIRS}\nsend\n"
    world["core"].run(["nsupdate", "-y", key], stdin=lines)

"""`dns_restart`: what restarts, crashes and upgrades cost those who ask the DNS server.

Rules: queries are sent at a fixed rate, each once, from before the first event to after the last.
One is late if it has no answer after LIMIT_S. An event is over when the engine's successor has the
DNS server, of its own version.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ifdefault
from bench import peers_dns
from bench.clock import log
from bench.daemon import two_uplinks
from bench.four_resolvers import FourResolvers
from bench.results import Figure, Report, Table
from ifdefault.daemon.control import client
from ifdefault.daemon.control.protocol import Status
from ifdefault.lab import dns, netns
from ifdefault.lab.dns_load import DnsLoad, Outcome
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

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


class _Engine:
    """`ifdefault run` of a version, which is replaced by others."""

    def __init__(self, world: World, packages: Path) -> None:
        self._world, self._packages = world, packages
        self._child: subprocess.Popen[str] | None = None
        self._number = 0
        self.package = self._copy()

    def _copy(self) -> Path:
        """The package, as another version of its own."""
        self._number += 1
        here = self._packages / str(self._number)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(ifdefault.__file__).parent, here / "ifdefault", ignore=ignored)
        init = here / "ifdefault" / "__init__.py"
        version = f"{ifdefault.__version__}.{self._number}"
        init.write_text(init.read_text().replace(ifdefault.__version__, version))
        return here

    def start(self) -> None:
        command = netns.argv(self._world["host"].netns, [*self._world.command, "run"])
        env = self._world["host"].environment({"PYTHONPATH": str(self.package)})
        with (self._world.dir / "daemon.log").open("a") as out:
            self._child = subprocess.Popen(command, env=env, stdout=out, stderr=out, text=True)
        self._world.remember(self._child)
        eventually(self._answers, what="the DNS server is the engine's", poll_s=0.02)

    def _answers(self) -> bool:
        assert self._child is not None
        with suppress(HostError):
            status = client.ask(self._world.run_dir, Status(), timeout_s=10)
            states = [publisher.state for publisher in status.dns.publishers]
            return status.pid == self._child.pid and states == ["current"]
        return False

    def end(self, number: int = signal.SIGTERM) -> None:
        assert self._child is not None
        self._child.send_signal(number)
        self._child.wait(20)

    def restart(self) -> None:
        self.end()
        self.start()

    def kill(self) -> None:
        self.end(signal.SIGKILL)
        self.start()

    def upgrade(self) -> None:
        self.package = self._copy()
        self.restart()


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
        Path(packages).chmod(0o755)
        world.config.write_text(f"{two_uplinks()}{_CONFIG}", encoding="utf-8")
        engine = _Engine(world, Path(packages))
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

"""`chaos`: random faults on three uplinks and of the host, and what the daemon did wrong meanwhile.

Rules: the bench makes the faults, so it knows the true state. A fault lasts from just before the
command that starts it to just after the one that ends it. Each figure names its margin; an uplink
that is impaired but not dead may be called up or down.
CHAOS_MINUTES and CHAOS_SEED set the duration and the faults.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from pathlib import Path

from bench import chaos_cost, chaos_outcome, host_faults, tcp_streams
from bench.chaos_host import HOST_FAULTS, Resources
from bench.chaos_outcome import DEVICES, KINDS, FaultPeriod, Record, State, Stream
from bench.clock import log
from bench.daemon import rss_mib
from bench.echoes import Echoes
from bench.host_faults import HostFaults
from bench.observer import Watch
from bench.peers_monitors import FAR
from bench.replaced import ReplacedDaemon
from bench.results import Report
from bench.round_trips import Asking
from bench.subject import config
from bench.tcp_streams import TcpStreams
from ifdefault.ipc.control import client
from ifdefault.ipc.control.protocol import Events
from ifdefault.lab import faults, services
from ifdefault.lab.dns_load import DnsLoad
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

_MINUTES = float(os.environ.get("CHAOS_MINUTES", "30"))
_SEED = int(os.environ.get("CHAOS_SEED", "1997"))
_AMOUNTS = {"loss": 20}  # per cent; the others have the lab's default
_WEIGHTS = [2 if kind == "dead" else 1 for kind in KINDS.values()]
_DEATHS = [int(kind == "dead") for kind in KINDS.values()]  # only these in the first half
_AT_ONCE = 2  # of three
_PAUSE_S = 9.0  # on average, between a fault and the next
_SHORTEST_S, _MORE_S, _LONGEST_S = 5.0, 7.0, 30.0
_CALM_S = 10.0
_ASK_S = 0.5
_TURN_S = 0.05
_NOTE_S = 5.0  # memory, the log's size, and events
_EVENTS = 400
_DNS_PORT = 5353  # that any user may open
_QUERIES_PER_S = 20.0  # to each uplink
_SETTLED_S = 30.0
_DNS = f"""
[[dns.name]]
name = "{ZONE}"
[dns.server]
zones = ["{ZONE}"]
port = {_DNS_PORT}
rate_limit = 0
"""
_EPOCH_S = time.time() - time.monotonic()
_DOWN = re.compile(r"(\S+) IPv(4|6): \w+ -> down \((.*)\)")
_DEAD, _IMPAIRED, _FLAPPING = (
    ", ".join(f"`{fault}`" for fault, kind in KINDS.items() if kind == group)
    for group in ("dead", "impaired", "flapping")
)
_HOST = ", ".join(f"`{kind}`" for kind in HOST_FAULTS)
_MESSAGES = 1 / tcp_streams.EVERY_S
_HOW = f"""\
The lab's world `three`, `ifdefault run` with default settings and ranks in the order of the
uplinks. For {_MINUTES:g} minutes random faults (seed {_SEED}) affect one or two of the three
uplinks at a time, mostly the primary: each lasts {_SHORTEST_S:g} to {_LONGEST_S:g} s,
{_SHORTEST_S + _MORE_S:g} s on average, and they begin {_PAUSE_S:g} s apart. *Dead*: {_DEAD}.
*Impaired*: {_IMPAIRED}. *Flapping*, which is neither: {_FLAPPING}. The first half has only faults
of the kind *dead*, the second half all. Meanwhile the host has faults of its own, one at a time:
{_HOST}. *Upgrade*: the daemon is replaced by another version; *freeze*: it is stopped for
{host_faults.FROZEN_S:g} s; *flush*: `nft flush ruleset` twice a second. The storms make and remove
10,000 routes of a table of their own and 1,000 of main, 200 pairs of links, 1,000 addresses, or
1,000 rules. The *hostile user* holds and floods connections to the daemon's socket for all users,
asks for `exec` again and again, tries to open the DNS server's port, sends forged datagrams to all
UDP ports, leaves TCP connections half-used, and forks processes with odd names.

The kernel's default route is watched as in `failover`, for IPv4 and IPv6. The client sends 100 echo
requests a second to each of the host's six addresses, keeps a TCP connection to each, over which
{_MESSAGES:g} messages a second go and return, and sends {_QUERIES_PER_S:g} DNS queries a second to
each uplink, every fourth time over TCP, without `rate_limit`. The daemon is asked 100 times a
second for its latest event.

{chaos_outcome.HOW}"""


def run() -> Report:
    random.seed(_SEED)
    record = Record(DEVICES)
    with World.up(load("three")) as world, tempfile.TemporaryDirectory() as folder:
        world.run_dir = Path(folder) / "run"  # which other users see
        Path(folder).chmod(0o755)
        services.builtin(world["host"])
        daemon = ReplacedDaemon(world, _config() + _DNS, Path(folder))
        daemon.start()
        eventually(daemon.is_well, what="every path is up")
        watch = Watch(world["host"], "route", *FAR)
        time.sleep(_CALM_S)
        host = HostFaults(daemon, _DNS_PORT, "isp-b", random.Random(_SEED))
        with _visitors(world, record):
            with host.running():
                _run_faults(world, daemon, watch, record, host)
            record.host = host.periods
            _settle(world, daemon, record)
        for far in FAR:
            record.defaults[far] = watch.seen(far)
    samples = {
        "faults": list(map(asdict, record.faults)),
        "host": list(map(asdict, record.host)),
        "made": dict(host.made),
        "defaults": {far: list(map(asdict, seen)) for far, seen in record.defaults.items()},
        "states": list(map(asdict, chaos_outcome.changes(record.states))),
        "downs": list(map(asdict, record.downs)),
        "lost": chaos_outcome.lost_without_fault(record),
        "queries lost": chaos_cost.queries_without_fault(record),
        # thousands are late while their own uplink has a fault
        "connections": {
            stream.address: asdict(stream) | {"late": len(stream.late)}
            for _, stream in record.connections
        },
        "long round trips": list(map(astuple, chaos_cost.pauses(record))),  # as in RoundTrip
        "resources": list(map(asdict, record.resources)),
        "check": record.faults_of_check,
    }
    figures = (*chaos_outcome.figures(record), *chaos_cost.figures(record))
    return Report("Chaos", _HOW, figures, chaos_outcome.tables(record), samples)


@contextmanager
def _visitors(world: World, record: Record) -> Iterator[None]:
    """Those who use the host meanwhile, and who asks the daemon."""
    targets = {target.address: target.provider for target in world.topology.targets()}
    echoes = Echoes(world["client"], list(targets), every_s=0.01)
    streams = TcpStreams(world["client"], list(targets))
    asking = Asking(world["host"])
    loads = {
        provider: DnsLoad(
            world["client"],
            [address for address, by in targets.items() if by == provider],
            ZONE,
            rate=_QUERIES_PER_S,
            port=_DNS_PORT,
        )
        for provider in DEVICES
    }
    for queries in loads.values():
        queries.start()
    try:
        yield
    finally:
        for queries in loads.values():
            queries.stop()
    for address, (sent, lost) in echoes.stop().items():
        record.streams.append(Stream(address, targets[address], sent, tuple(lost)))
    for provider, queries in loads.items():
        sent = sum(outcome.asked for outcome in queries.outcomes)
        failed = tuple(at_s for outcome in queries.outcomes for at_s, _ in outcome.failed)
        record.queries.append(Stream(provider, provider, sent, failed))
    record.connections += [(targets[stream.address], stream) for stream in streams.stop()]
    record.round_trips = asking.stop()


def _settle(world: World, daemon: ReplacedDaemon, record: Record) -> None:
    """When all is over, everything must be as it was."""

    def check() -> bool:
        done = world.ifdefault("check")
        record.faults_of_check = (done.stdout + done.stderr).splitlines() * bool(done.returncode)
        return not done.returncode

    time.sleep(_CALM_S)
    with suppress(TimeoutError):
        eventually(check, _SETTLED_S, poll_s=2.0)
    _note(daemon, record)


def _config() -> str:
    return config(
        {
            "name": name,
            "interface": dev,
            "rank": rank,
            "gateways": [g.partition("/")[0] for g in load("three").providers[rank].gateways],
        }
        for rank, (name, dev) in enumerate(DEVICES.items())
    )


def _run_faults(
    world: World, daemon: ReplacedDaemon, watch: Watch, record: Record, host: HostFaults
) -> None:
    """Start and end faults, and read the daemon's states, until the time is over."""
    half_s = time.monotonic() + _MINUTES * 30
    end_s = half_s + _MINUTES * 30
    active: dict[str, tuple[str, float, float]] = {}  # provider: fault, begin, scheduled end
    next_s = ask_s = logged_s = noted_s = time.monotonic()
    while active or time.monotonic() < end_s:
        now = time.monotonic()
        for provider, (fault, begin_s, due_s) in list(active.items()):
            if now >= min(due_s, end_s):
                faults.remove(world, fault, provider)
                record.faults.append(FaultPeriod(provider, fault, begin_s, time.monotonic()))
                del active[provider]
        if next_s <= now < end_s and len(active) < _AT_ONCE:
            primary = {watch.value(far) for far in FAR}
            intact = [name for name in DEVICES if name not in active]
            weights = [2 if DEVICES[name] in primary else 1 for name in intact]
            (provider,) = random.choices(intact, weights)
            (fault,) = random.choices(list(KINDS), _DEATHS if now < half_s else _WEIGHTS)
            lasting_s = _SHORTEST_S + random.expovariate(1 / _MORE_S)
            due_s = now + min(lasting_s, _LONGEST_S)
            active[provider] = (fault, time.monotonic(), due_s)
            faults.inject(world, fault, provider, _AMOUNTS.get(fault))
            next_s = time.monotonic() + random.expovariate(1 / _PAUSE_S)
        if now >= ask_s:
            ask_s = now + _ASK_S
            record.states += _states(daemon)
        if now >= noted_s:
            noted_s = now + _NOTE_S
            host.verify()
            _note(daemon, record)
        if now >= logged_s + 60:
            logged_s = now
            log(f"{len(record.faults)} faults, {max(0.0, end_s - now) / 60:.0f} minutes to go")
        time.sleep(_TURN_S)


def _states(daemon: ReplacedDaemon) -> list[State]:
    """None while there is no engine."""
    with suppress(HostError):
        health = daemon.status().health
        asked_s = time.monotonic()
        return [State(asked_s, h.uplink, h.family, h.state, h.since_s, h.cause) for h in health]
    return []


def _note(daemon: ReplacedDaemon, record: Record) -> None:
    """What the daemon uses, and the latest events; nothing while there is no engine."""
    with suppress(HostError, OSError):
        events = client.ask(daemon.world.run_dir, Events(_EVENTS), timeout_s=10).events
        used_mib = {name: rss_mib(pid) for name, pid in daemon.all_pids().items()}
        size = (daemon.world.dir / "daemon.log").stat().st_size
        record.resources.append(Resources(time.monotonic(), used_mib, size))
        known = {(down.uplink, down.family, down.at_s) for down in record.downs}
        for event in events:
            if match := _DOWN.fullmatch(event.text):
                at_s, family = round(event.at - _EPOCH_S, 1), int(match[2])
                if (match[1], family, at_s) not in known:
                    record.downs.append(State(at_s, match[1], family, "down", at_s, match[3]))

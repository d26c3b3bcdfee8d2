"""`chaos`: random faults on three uplinks, and every wrong decision of the daemon meanwhile.

Rules: the bench makes the faults, so it knows the true state. A fault lasts from just before the
command that starts it to just after the one that ends it. Each figure names its margin; an uplink
that is impaired but not dead may be called up or down.
CHAOS_MINUTES and CHAOS_SEED set the duration and the faults.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import asdict

from bench import chaos_outcome
from bench.chaos_outcome import DEVICES, KINDS, FaultPeriod, Record, State, Stream
from bench.clock import log
from bench.daemon import Daemon
from bench.echoes import Echoes
from bench.observer import Watch
from bench.peers_monitors import FAR
from bench.results import Report
from bench.subject import config
from ifdefault.lab import faults
from ifdefault.lab.topology import load
from ifdefault.lab.world import World

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
_DEAD, _IMPAIRED, _FLAPPING = (
    ", ".join(f"`{fault}`" for fault, kind in KINDS.items() if kind == group)
    for group in ("dead", "impaired", "flapping")
)
_HOW = f"""\
The lab's world `three`, `ifdefault run` with default settings and ranks in the order of the
uplinks. For {_MINUTES:g} minutes random faults (seed {_SEED}) affect one or two of the three
uplinks at a time, mostly the primary: each lasts {_SHORTEST_S:g} to {_LONGEST_S:g} s,
{_SHORTEST_S + _MORE_S:g} s on average, and they begin {_PAUSE_S:g} s apart. *Dead*: {_DEAD}.
*Impaired*: {_IMPAIRED}. *Flapping*, which is neither: {_FLAPPING}. The first half has only faults
of the kind *dead*, the second half all. Meanwhile the kernel's default route is watched as in
`failover`, for IPv4 and IPv6; the daemon's states are read every {_ASK_S:g} s; and the client sends
100 echo requests a second to each of the host's six addresses.

{chaos_outcome.HOW}"""


def run() -> Report:
    random.seed(_SEED)
    with World.up(load("three")) as world:
        daemon = Daemon(world, _config())
        daemon.start()
        watch = Watch(world["host"], "route", *FAR)
        targets = {target.address: target.provider for target in world.topology.targets()}
        time.sleep(_CALM_S)
        echoes = Echoes(world["client"], list(targets), every_s=0.01)
        record = Record(DEVICES)
        _run_faults(world, daemon, watch, record)
        time.sleep(_CALM_S)
        for address, (sent, lost) in echoes.stop().items():
            record.streams.append(Stream(address, targets[address], sent, tuple(lost)))
        for far in FAR:
            record.defaults[far] = watch.seen(far)
    samples = {
        "faults": list(map(asdict, record.faults)),
        "defaults": {far: list(map(asdict, seen)) for far, seen in record.defaults.items()},
        "states": list(map(asdict, chaos_outcome.changes(record.states))),
        "lost": chaos_outcome.lost_without_fault(record),
    }
    figures = chaos_outcome.figures(record)
    return Report("Chaos", _HOW, figures, chaos_outcome.tables(record), samples)


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


def _run_faults(world: World, daemon: Daemon, watch: Watch, record: Record) -> None:
    """Start and end faults, and read the daemon's states, until the time is over."""
    half_s = time.monotonic() + _MINUTES * 30
    end_s = half_s + _MINUTES * 30
    active: dict[str, tuple[str, float, float]] = {}  # provider: fault, begin, scheduled end
    next_s = ask_s = logged_s = time.monotonic()
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
        if now >= logged_s + 60:
            logged_s = now
            log(f"{len(record.faults)} faults, {max(0.0, end_s - now) / 60:.0f} minutes to go")
        time.sleep(_TURN_S)


def _states(daemon: Daemon) -> list[State]:
    asked_s = time.monotonic()
    return [
        State(asked_s, h.uplink, h.family, h.state, h.since_s, h.cause)
        for h in daemon.status().health
    ]

"""`chaos`: random faults over three uplinks, and whatever contradicts the truth meanwhile.

Rules: what is true is known, since the bench makes it so. A fault's times are taken from just
before the command that lays it to just after the one that ends it. Each figure names its margin;
what was impaired, but not dead, is neither held to be intact nor to be down.
CHAOS_MINUTES and CHAOS_SEED say how long, and which faults.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import asdict

from bench import chaos_verdict
from bench.chaos_verdict import KINDS, Record, Spell, State, Stream
from bench.clock import say
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
_DEVICES = {"isp-a": "wan0", "isp-b": "wan1", "isp-c": "wan2"}
_AMOUNTS = {"loss": 20}  # per cent; the others as the lab has them
_WEIGHTS = [2 if kind == "dead" else 1 for kind in KINDS.values()]
_DEATHS = [int(kind == "dead") for kind in KINDS.values()]  # alone, in the first half
_AT_ONCE = 2  # of three
_PAUSE_S = 9.0  # on average, between a fault and the next
_SHORTEST_S, _MORE_S, _LONGEST_S = 5.0, 7.0, 30.0
_CALM_S = 10.0
_ASK_S = 0.5
_TURN_S = 0.05
_DEAD, _IMPAIRED, _FLAPPING = (
    ", ".join(f"`{fault}`" for fault, kind in KINDS.items() if kind == wanted)
    for wanted in ("dead", "impaired", "flapping")
)
_HOW = f"""\
The lab's world `three`, `ifdefault run` with default settings and ranks in the order of the
uplinks. For {_MINUTES:g} minutes random faults (seed {_SEED}) come and go on one or two of the
three uplinks at a time, rather on those that carry the default: each {_SHORTEST_S:g} to
{_LONGEST_S:g} s long, {_SHORTEST_S + _MORE_S:g} s on average, {_PAUSE_S:g} s apart. *Dead*:
{_DEAD}. *Impaired*: {_IMPAIRED}. *Flapping*, which is neither: {_FLAPPING}. In the first half of
the time there are deaths alone, in the second all. Meanwhile the kernel's default is watched as in
`failover`, for IPv4 and IPv6; the daemon is asked for its states each {_ASK_S:g} s; and the client
sends 100 echo requests a second to each of the host's six addresses.
{chaos_verdict.HOW}"""


def run() -> Report:
    random.seed(_SEED)
    with World.up(load("three")) as world:
        daemon = Daemon(world, _config())
        daemon.start()
        watch = Watch(world["host"], "route", *FAR)
        targets = {target.address: target.provider for target in world.topology.targets()}
        time.sleep(_CALM_S)
        echoes = Echoes(world["client"], list(targets), every_s=0.01)
        record = Record(_DEVICES)
        _trouble(world, daemon, watch, record)
        time.sleep(_CALM_S)
        for address, (sent, lost) in echoes.stop().items():
            record.streams.append(Stream(address, targets[address], sent, tuple(lost)))
        for far in FAR:
            record.defaults[far] = watch.seen(far)
    samples = {
        "spells": list(map(asdict, record.spells)),
        "defaults": {far: list(map(asdict, seen)) for far, seen in record.defaults.items()},
        "states": list(map(asdict, chaos_verdict.changes(record.states))),
        "lost": chaos_verdict.lost_untouched(record),
    }
    found = chaos_verdict.figures(record)
    return Report("Chaos", _HOW, found, chaos_verdict.tables(record), samples)


def _config() -> str:
    return config(
        {
            "name": name,
            "interface": dev,
            "rank": rank,
            "gateways": [g.partition("/")[0] for g in load("three").providers[rank].gateways],
        }
        for rank, (name, dev) in enumerate(_DEVICES.items())
    )


def _trouble(world: World, daemon: Daemon, watch: Watch, record: Record) -> None:
    """Lay and end faults, and ask the daemon, until the time is over."""
    half_s = time.monotonic() + _MINUTES * 30
    end_s = half_s + _MINUTES * 30
    active: dict[str, tuple[str, float, float]] = {}  # provider: fault, begun, due to end
    next_s = ask_s = told_s = time.monotonic()
    while active or time.monotonic() < end_s:
        now = time.monotonic()
        for provider, (fault, begun_s, due_s) in list(active.items()):
            if now >= min(due_s, end_s):
                faults.undo(world, fault, provider)
                record.spells.append(Spell(provider, fault, begun_s, time.monotonic()))
                del active[provider]
        if next_s <= now < end_s and len(active) < _AT_ONCE:
            carrying = {watch.value(far) for far in FAR}
            free = [name for name in _DEVICES if name not in active]
            weights = [2 if _DEVICES[name] in carrying else 1 for name in free]
            (provider,) = random.choices(free, weights)
            (fault,) = random.choices(list(KINDS), _DEATHS if now < half_s else _WEIGHTS)
            lasting_s = _SHORTEST_S + random.expovariate(1 / _MORE_S)
            due_s = now + min(lasting_s, _LONGEST_S)
            active[provider] = (fault, time.monotonic(), due_s)
            faults.inflict(world, fault, provider, _AMOUNTS.get(fault))
            next_s = time.monotonic() + random.expovariate(1 / _PAUSE_S)
        if now >= ask_s:
            ask_s = now + _ASK_S
            record.states += _states(daemon)
        if now >= told_s + 60:
            told_s = now
            say(f"{len(record.spells)} faults, {max(0.0, end_s - now) / 60:.0f} minutes to go")
        time.sleep(_TURN_S)


def _states(daemon: Daemon) -> list[State]:
    asked_s = time.monotonic()
    return [
        State(asked_s, h.uplink, h.family, h.state, h.since_s, h.cause)
        for h in daemon.status().health
    ]

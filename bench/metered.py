"""`metered`: the free uplink dies and returns, again and again: what stays on the metered one?

Rules: which uplink a connection uses is what its server sees; the metered bytes are counted by the
provider, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from bench.clock import log
from bench.daemon import Daemon
from bench.flows import Flows, Held, serve
from bench.lan import UPLINKS
from bench.results import Figure, Report, Table
from bench.subject import config
from ifdefault.ipc.control import client
from ifdefault.ipc.control.protocol import Events
from ifdefault.lab import faults
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.usage import Usage

CYCLES = 20
STAY_CYCLES = 2
_PORT = 7960
_FREE, _METERED = "isp-a", "isp-b"
_FAR = ("198.18.1.10", "2001:db8:f:1::10")  # the client
_METERED_ADDRESSES = ("198.51.100.10", "2001:db8:b::10")
_HOST, _LAN, _INBOUND, _EXEC = 40, 40, 10, 10
_GRACE_S, _DEAD_S, _AFTER_S = 1, 1.0, 1.5
_BUDGET_MB = 12
_LATELY_S = 0.7
_REST_S = 3.0
_TIMEOUT_S = 90.0
_HOW = f"""\
The lab's world `two`: isp-a is free, isp-b metered, with a grace of {_GRACE_S} s. 100 connections,
half of them by IPv6, send and receive 1,000 bytes twice a second, and are opened anew when
they break: {_HOST} of the host, {_LAN} of a masqueraded LAN, {_INBOUND} from outside to an address
of isp-b, {_EXEC} by `ifdefault exec isp-b`. {CYCLES} times isp-a's router forwards nothing any
more until new connections use isp-b, and {_DEAD_S:g} s longer; then it returns.

*Stranded* are connections of the host and the LAN that the server sees coming from isp-b, and
that were answered in the last {_LATELY_S:g} s, {_AFTER_S:g} s after the grace. *Free ones ended*
came from isp-a and broke between the return and then; *tied ones ended* are those from outside
and of `exec`, at any time. *Not told* are those over isp-b that weren't reset, but got no more
answers: a LAN's client that has nothing to send when its flow is deleted. isp-b's provider counts
what it forwards (IP packets), ifdefault what the interface carries (frames; gateway probes, ARP
and ND, too). `stay` is the same with `on_return = "stay"`, {STAY_CYCLES} times.

*Budget*: once more with `budget = "{_BUDGET_MB} MB"` and `on_budget = "down"`, while isp-a is dead:
what the provider has forwarded when the budget is said to be used up, and what it forwards
{_AFTER_S:g} s later for the connections of host and LAN, and for probes."""


@dataclass(frozen=True, slots=True)
class Cycle:
    dead_s: float
    back_s: float  # new connections use the free uplink again
    checked_s: float


@dataclass
class Outcome:
    moved: list[int] = field(
        default_factory=list
    )  # on the metered uplink when the free one is back
    stranded: list[int] = field(default_factory=list)
    free_ended: list[int] = field(default_factory=list)
    tied_ended: int = 0
    not_told: int = 0
    provider_bytes: int = 0
    counted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    provider_bytes: int  # when the budget is said to be used up
    budget_bytes: int
    rest_per_s: float  # what is forwarded from then on


def run(cycles: int = CYCLES) -> Report:
    """`cycles`: fewer for a trial run."""
    outcomes = {"end": _returns("end", cycles), "stay": _returns("stay", STAY_CYCLES)}
    spent = _budget()
    samples = {name: asdict(outcome) for name, outcome in outcomes.items()}
    samples["budget"] = asdict(spent)
    return Report(
        "A metered uplink",
        _HOW,
        tuple(_figures(outcomes["end"], outcomes["stay"], spent)),
        (_table(outcomes),),
        samples,
    )


# --- trials -------------------------------------------------------------------------------


@contextmanager
def _world(**keys: object) -> Iterator[tuple[World, Daemon]]:
    """With a daemon that runs, servers, and a counter at the metered uplink's provider."""
    with World.up(load("two")) as world:
        for node in ("host", "client"):
            serve(world[node], _PORT)
        world[_METERED].nft(
            "table inet billing { counter passed { }; chain f {"
            " type filter hook forward priority 100;"
            ' iifname "cust0" counter name passed; oifname "cust0" counter name passed; }; }'
        )
        metered = UPLINKS[1] | {"metered": True, "grace": f"{_GRACE_S}s"} | keys
        text = config([UPLINKS[0], metered])
        more = "[outgoing]\nmasquerade = ['lan0']\n[health]\nrecover_s = 0.3\ndamp_s = 0.3\n"
        daemon = Daemon(world, f"{text}\n{more}")
        daemon.start()
        yield world, daemon
        daemon.stop()


def _returns(on_return: str, cycles: int) -> Outcome:
    with _world(on_return=on_return, budget="10 GB") as (world, daemon):
        before = _passed(world), _used(daemon).used_bytes
        flows = _open(world)
        done = [_cycle(world, daemon) for _ in range(cycles)]
        held = {name: each.stop() for name, each in flows.items()}
        time.sleep(2.5)  # until the engine has counted again
        outcome = Outcome(
            provider_bytes=_passed(world) - before[0],
            counted_bytes=_used(daemon).used_bytes - before[1],
        )
    outgoing = held["host"] + held["lan"]
    for cycle in done:
        outcome.moved.append(len(_on_metered(outgoing, cycle.back_s)))
        outcome.stranded.append(len(_on_metered(outgoing, cycle.checked_s)))
        free = [x for x in outgoing if x.seen not in _METERED_ADDRESSES and x.end == "broke"]
        outcome.free_ended.append(sum(cycle.back_s < x.until_s < cycle.checked_s for x in free))
    tied = held["inbound"] + held["exec"]
    outcome.tied_ended = sum(one.end != "lasted" for one in tied)
    silent = [one for one in outgoing if one.end == "silent"]
    outcome.not_told = sum(one.seen in _METERED_ADDRESSES for one in silent)
    log(f"{on_return}: {outcome}")
    return outcome


def _open(world: World) -> dict[str, Flows]:
    execute = [*world.command, "exec", _METERED, "--"]
    flows = {
        "host": Flows(world["host"], _PORT, _HOST, _FAR),
        "lan": Flows(world["content"], _PORT, _LAN, _FAR),
        "inbound": Flows(world["client"], _PORT, _INBOUND, _METERED_ADDRESSES),
        "exec": Flows(world["host"], _PORT, _EXEC, _FAR, execute),
    }
    for each in flows.values():
        each.await_open()
    return flows


def _cycle(world: World, daemon: Daemon) -> Cycle:
    with faults.injected(world, "blackhole", _FREE):
        _await_primary(daemon, _METERED)
        time.sleep(_DEAD_S)
        dead_s = time.monotonic()
    _await_primary(daemon, _FREE)
    back_s = time.monotonic()
    time.sleep(_GRACE_S)
    eventually(lambda: not daemon.status().graces, _TIMEOUT_S, what="no grace runs", poll_s=0.02)
    time.sleep(_AFTER_S)
    return Cycle(dead_s, back_s, time.monotonic())


def _await_primary(daemon: Daemon, name: str) -> None:
    def is_primary() -> bool:
        decision = daemon.status().decision
        return all(decision.ranking(family)[:1] == (name,) for family in (4, 6))

    eventually(is_primary, _TIMEOUT_S, what=f"{name} is primary", poll_s=0.02)


def _on_metered(held: list[Held], at_s: float) -> list[Held]:
    carrying = [one for one in held if one.answered(at_s - _LATELY_S, at_s)]
    return [one for one in carrying if one.seen in _METERED_ADDRESSES]


def _budget() -> Spent:
    with _world(budget=f"{_BUDGET_MB} MB", on_budget="down") as (world, daemon):
        flows = _open(world)
        faults.inject(world, "blackhole", _FREE)
        eventually(lambda: _is_spent(world), _TIMEOUT_S, what="the budget is used up", poll_s=0.05)
        passed = _passed(world)
        for name in ("inbound", "exec"):
            flows[name].stop()
        time.sleep(_AFTER_S)
        before = _passed(world)
        time.sleep(_REST_S)
        rest = (_passed(world) - before) / _REST_S
        for name in ("host", "lan"):
            flows[name].stop()
        limit = _used(daemon).limit_bytes
    spent = Spent(passed, limit, rest)
    log(f"budget: {spent}")
    return spent


def _is_spent(world: World) -> bool:
    events = client.ask(world.run_dir, Events(500), timeout_s=10).events
    return any(event.kind == "budget" and event.severity == "error" for event in events)


def _used(daemon: Daemon) -> Usage:
    return next(usage for usage in daemon.status().usage if usage.uplink == _METERED)


def _passed(world: World) -> int:
    """The bytes that the metered uplink's provider has forwarded."""
    command = ["nft", "-j", "list", "counter", "inet", "billing", "passed"]
    found = json.loads(world[_METERED].run(command).stdout)["nftables"]
    return next(int(each["counter"]["bytes"]) for each in found if "counter" in each)


# --- the report ---------------------------------------------------------------------------


def _figures(end: Outcome, stay: Outcome, spent: Spent) -> Iterator[Figure]:
    count = len(end.stranded)
    yield Figure(f"stranded after {count} returns, at most", max(end.stranded), target=0)
    yield Figure('stranded with `on_return = "stay"`, at most', max(stay.stranded))
    yield Figure(f"free ones ended in {count} returns", sum(end.free_ended), target=0)
    yield Figure("tied ones ended", end.tied_ended, target=0)
    share = 100 * end.not_told / sum(end.moved)
    yield Figure("returned, but not told", share, "%")
    counted = 100 * abs(end.counted_bytes / end.provider_bytes - 1)
    yield Figure("metered bytes: counted differently from the provider", counted, "%", 5)
    beyond = 100 * abs(spent.provider_bytes / spent.budget_bytes - 1)
    yield Figure("budget: forwarded when it is used up, off by", beyond, "%", 5)
    yield Figure("budget: forwarded from then on", spent.rest_per_s / 1000, "kB/s", 5)


def _table(outcomes: dict[str, Outcome]) -> Table:
    rows = tuple(
        (
            f'`on_return = "{name}"`',
            str(len(outcome.stranded)),
            f"{min(outcome.moved)} to {max(outcome.moved)}",
            f"{min(outcome.stranded)} to {max(outcome.stranded)}",
            str(sum(outcome.free_ended)),
            str(outcome.tied_ended),
            str(outcome.not_told),
            f"{outcome.provider_bytes / 1e6:.1f} MB",
            f"{outcome.counted_bytes / 1e6:.1f} MB",
        )
        for name, outcome in outcomes.items()
    )
    heads = (
        *("", "returns", "on isp-b at the return", "after the grace", "free ones ended"),
        *("tied ones ended", "not told", "provider's count", "ifdefault's count"),
    )
    return Table("Connections", heads, rows)

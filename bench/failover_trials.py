"""Trials of a failover: cut one uplink and time the reaction; restore it and time the return.

Rules: all times are of the monotonic clock. A fault begins just before the command that starts it,
so that command's few milliseconds are part of every figure; likewise for its end. A change before
the fault is a false alarm.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from bench.clock import log
from bench.observer import Watch
from ifdefault.kernel import nft
from ifdefault.lab.node import Node
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

_HOLD_S = 1.0  # the shortest fault, and the shortest calm before it
_BEGIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """What to observe: `watch`'s `key`, which has the value `intact` without a fault."""

    watch: Watch
    key: str
    intact: str


Start = Callable[[World], Sequence[Gauge]]


@dataclass(frozen=True, slots=True)
class Cut:
    """A way in which an uplink dies, at its provider's router."""

    name: str
    begin: Callable[[Node], None]
    end: Callable[[Node], None]


def _drop(node: Node) -> None:
    rules = "chain forward { type filter hook forward priority -20; policy drop; }; "
    node.python(partial(nft.run, f"add table inet cut {{ {rules}}}"))


def _pass(node: Node) -> None:
    node.python(partial(nft.run, "delete table inet cut"))


def _unplug(node: Node) -> None:
    node.ip("link set cust0 down\n")


def _plug(node: Node) -> None:
    node.ip("link set cust0 up\n")
    node.configure()  # a link that goes down loses its routes


BLACKHOLE = Cut("blackhole", _drop, _pass)
CARRIER = Cut("carrier", _unplug, _plug)


@dataclass(frozen=True, slots=True)
class System:
    """A system with settings, and how it is measured. A fault begins and ends at a random time
    within `period_s`, after a calm of `calm_s`. `again` is called between two trials."""

    name: str
    settings: str
    pace: str  # its probes for an uplink, without a fault
    start: Start
    period_s: float = 1.0
    calm_s: float = _HOLD_S
    down_s: float = 30.0  # timeouts
    up_s: float = 60.0
    again: Callable[[World], None] = field(default=lambda world: None)
    prepare: Callable[[World], None] = field(default=lambda world: None)

    @property
    def title(self) -> str:
        return f"{self.name}, {self.settings}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault. By gauge: how long until the system acted, and until all was as before; None
    after a timeout."""

    down_s: tuple[float | None, ...]
    up_s: tuple[float | None, ...]
    false_alarms: int


@dataclass(frozen=True, slots=True)
class Job:
    """Consecutive trials, in their own world."""

    system: System
    cut: Cut
    trials: int


Trials = dict[tuple[str, str], list[Trial]]  # by the title of the system, and the fault


def intact_at_first(system: System, world: World) -> Sequence[Gauge]:
    return intact(*system.start(world))


def intact(*gauges: Gauge) -> Sequence[Gauge]:
    """Wait until all gauges show that nothing is wrong."""
    for gauge in gauges:
        eventually(partial(_is_intact, gauge), _BEGIN_S, what=f"{gauge.key} is {gauge.intact}")
    return gauges


def _is_intact(gauge: Gauge) -> bool:
    return gauge.watch.value(gauge.key) == gauge.intact


def run(jobs: Sequence[Job], worlds: int) -> Trials:
    """All trials, in so many worlds at a time, in order."""
    trials: Trials = {}
    with ThreadPoolExecutor(worlds) as pool:
        futures: list[tuple[Job, Future[list[Trial]]]] = [
            (job, pool.submit(_series, job)) for job in jobs
        ]
        try:
            for job, future in futures:
                trials.setdefault((job.system.title, job.cut.name), []).extend(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return trials


def watch_idly(systems: Sequence[System], seconds: float) -> dict[str, int]:
    """By name and settings: how often each acted without a fault, all at the same time."""

    def count(system: System) -> int:
        with World.up(load("two")) as world:
            system.prepare(world)
            gauges = intact_at_first(system, world)
            since_s = time.monotonic()
            time.sleep(seconds)
            return sum(_alarms(gauge, since_s) for gauge in gauges)

    with ThreadPoolExecutor(len(systems)) as pool:
        counts = list(pool.map(count, systems))
    return {system.title: number for system, number in zip(systems, counts, strict=True)}


def _series(job: Job) -> list[Trial]:
    system, trials = job.system, []
    with World.up(load("two")) as world:
        system.prepare(world)
        gauges = intact_at_first(system, world)
        for number in range(job.trials):
            if number:
                system.again(world)
            trials.append(_trial(world["isp-a"], system, job.cut, gauges))
    times = [time_s for trial in trials for time_s in trial.down_s]
    text = ", ".join("never" if time_s is None else f"{time_s:.2f}" for time_s in times)
    log(f"{system.title}, {job.cut.name}: {text} s")
    return trials


def _trial(provider: Node, system: System, cut: Cut, gauges: Sequence[Gauge]) -> Trial:
    intact(*gauges)
    calm_since_s = time.monotonic()
    time.sleep(system.calm_s + random.uniform(0, system.period_s))
    false_alarms = sum(_alarms(gauge, calm_since_s) for gauge in gauges)
    intact(*gauges)
    cut_s = time.monotonic()
    cut.begin(provider)
    down_s = _when(gauges, lambda gauge, value: value != gauge.intact, cut_s, system.down_s)
    time.sleep(_HOLD_S + random.uniform(0, system.period_s))
    restored_s = time.monotonic()
    cut.end(provider)
    up_s = _when(gauges, lambda gauge, value: value == gauge.intact, restored_s, system.up_s)
    return Trial(down_s, up_s, false_alarms)


def _alarms(gauge: Gauge, since_s: float) -> int:
    """How often the system acted without a fault."""
    changes = gauge.watch.seen(gauge.key)
    return sum(change.at_s > since_s and change.value != gauge.intact for change in changes)


def _when(
    gauges: Sequence[Gauge],
    is_reached: Callable[[Gauge, str], bool],
    since_s: float,
    timeout_s: float,
) -> tuple[float | None, ...]:
    times_s = []
    for gauge in gauges:
        at_s = gauge.watch.when(gauge.key, partial(is_reached, gauge), since_s, timeout_s)
        times_s.append(None if at_s is None else at_s - since_s)
    return tuple(times_s)

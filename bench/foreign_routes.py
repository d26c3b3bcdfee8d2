"""`foreign_routes`: a host with a great many routes, links, addresses and rules that aren't ours.

Rules: everything is measured from outside the daemon. All worlds are there from the beginning to
the end, but only one daemon runs at a time; in each round every world has its trial, forwards and
backwards in turn, so that other work on the machine affects all. The first world has nothing
foreign, and the others are compared with it.
FOREIGN_SCALE divides the counts, for a short trial run; FOREIGN_TRIALS is the number of rounds.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial

from bench import others
from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.failover_trials import BLACKHOLE
from bench.observer import Watch
from bench.others import Bulk
from bench.peers_monitors import DEVICE, FAR
from bench.results import Figure, Report, Table
from bench.round_trips import Asking
from bench.stats import median
from ifdefault.lab.node import Node
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

START_S, PAUSE_MS, LATER_S, MORE_MIB = 2.0, 50.0, 0.1, 20.0
_SCALE = int(os.environ.get("FOREIGN_SCALE", "1"))
_TRIALS = int(os.environ.get("FOREIGN_TRIALS", "5"))
_FAILOVERS = 4 if _SCALE == 1 else 1  # in each trial
_QUICK = "[health]\nrecover_s = 0.3\ndamp_s = 0.3\n"
_CALM_S = 10.0 if _SCALE == 1 else 3.0
_AGAIN_S = 2.0  # of calm between two failovers
_PATIENCE_S = 120.0
_CHANGE_S = 0.2
_CONTAINERS_PER_MINUTE = 200
_WAY = "via 203.0.113.1 dev wan0"
_LAID = "laid_s"
_NONE = "nothing foreign"


def _count(number: int) -> int:
    return max(1, number // _SCALE)


def _quiet(_: Node) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Setting:
    """What is foreign on a host: laid before the daemon starts, and what changes all the time."""

    name: str
    bulks: tuple[Bulk, ...] = ()
    rules: str = ""  # for `ip`
    churn: Callable[[Node], AbstractContextManager[None]] = _quiet


def _changing(node: Node) -> AbstractContextManager[None]:
    return others.churning(node, others.changed_routes(), _CHANGE_S)


def _containers(node: Node) -> AbstractContextManager[None]:
    return others.churning(node, others.containers(), 60 / _CONTAINERS_PER_MINUTE)


_UNUSED = f"{_WAY} table {others.TABLE}"
_RULE = f"rule add to 11.0.0.0/8 lookup {others.TABLE} pref 20000\n"
_MILLION = others.routes(_count(1_000_000), _UNUSED)
SETTINGS = (
    Setting(_NONE),
    Setting(f"{_count(100_000):,} routes", (others.routes(_count(100_000), _UNUSED),)),
    Setting(f"{_count(1_000_000):,} routes", (_MILLION,)),
    Setting(f"{_count(1_000_000):,} routes, looked up by a rule", (_MILLION,), _RULE),
    Setting(
        f"{_count(1_000_000):,} routes, one changes every {_CHANGE_S:g} s",
        (_MILLION,),
        churn=_changing,
    ),
    Setting(
        f"{_count(10_000):,} routes of main over an uplink",
        (others.routes(_count(10_000), _WAY),),
    ),
    Setting(f"{2 * _count(1000):,} links", (others.links(_count(1000)),)),
    Setting(f"{_count(10_000):,} addresses", (others.addresses(_count(10_000)),)),
    Setting(f"{_count(5000):,} rules", (others.rules(_count(5000)),)),
    Setting(f"{_CONTAINERS_PER_MINUTE} containers a minute", churn=_containers),
)
_TITLE = "A host with much that isn't ours"
_NOTES = (f"A trial run, with counts divided by {_SCALE}.",) * (_SCALE > 1)
_HOW = f"""\
The lab's world `two`, with what other programs may add to a host: routes of table {others.TABLE},
which no rule looks up unless it says so; routes of main over an uplink, as a full table of BGP has;
links, addresses of a LAN and rules; containers, a pair of links and an address each, that start and
end. {_TRIALS} rounds; the daemon starts without state in each.

*Start*: from the start of the process until its status lists the paths. *Pause*: the longest time
to an answer, from then to the end of the failover, without the time for which the daemon waited for
a processor: an upper bound of its loop's longest pause. *Memory*: of all its processes, before the
failover. *Failover*: from just before the provider's black hole, at a random time, until the
default has moved, in the slower family; {_FAILOVERS} in each round, the first one {_CALM_S:g} s
after every path is up. `recover_s` and `damp_s` are 0.3 s, so that the next one can begin soon.
*Later* and *more* compare the median with that of nothing foreign."""


@dataclass(slots=True)
class Trials:
    """The results of all rounds with a setting. `laid_s`: how long `ip` took."""

    laid_s: float = 0.0
    start_s: list[float] = field(default_factory=list)
    pause_s: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    failover_s: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)  # of a core, before the failover


@dataclass(slots=True)
class Side:
    """A setting in its own world."""

    setting: Setting
    world: World
    daemon: Daemon
    trials: Trials = field(default_factory=Trials)

    def prepare(self) -> None:
        host = self.world["host"]
        self.trials.laid_s = sum(bulk.lay(host) for bulk in self.setting.bulks)
        host.ip(self.setting.rules)
        log(f"{self.setting.name}: made in {self.trials.laid_s:.1f} s")

    def trial(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self.setting.churn(self.world["host"]))
            start_s = time.monotonic()
            self.daemon.launch()
            stack.callback(self.daemon.stop)
            eventually(self._is_ready, _PATIENCE_S, what="the daemon is ready", poll_s=0.01)
            self.trials.start_s.append(time.monotonic() - start_s)
            asking = Asking(self.world["host"])
            eventually(self.daemon.is_well, _PATIENCE_S, what="every path is up", poll_s=0.1)
            watch = Watch(self.world["host"], "route", *FAR)
            stack.callback(watch.close)
            before_s = self.daemon.processor_s()
            time.sleep(_CALM_S)
            self.trials.processor.append((self.daemon.processor_s() - before_s) / _CALM_S)
            self.trials.rss_mib.append(self.daemon.rss_mib())
            self.trials.failover_s += [self._fail_over(watch) for _ in range(_FAILOVERS)]
            self.trials.pause_s.append(max((it.pause_s for it in asking.stop().long), default=0.0))
        self.daemon.forget()
        last = {name: round(it[-1], 3) for name, it in asdict(self.trials).items() if name != _LAID}
        log(f"{self.setting.name}: {last}")

    def _is_ready(self) -> bool:
        return self.daemon.knows_paths()

    def _fail_over(self, watch: Watch) -> float:
        for far in FAR:
            eventually(partial(_is_at_first, watch, far), what="the first uplink is primary")
        time.sleep(_AGAIN_S + random.random())  # at any time between two probes
        cut_s = time.monotonic()
        BLACKHOLE.begin(self.world["isp-a"])
        try:
            times_s = [
                watch.when(far, lambda value: value not in ("", DEVICE), cut_s, _PATIENCE_S)
                for far in FAR
            ]
        finally:
            BLACKHOLE.end(self.world["isp-a"])
        moved_s = [at_s for at_s in times_s if at_s is not None]
        if len(moved_s) < len(FAR):
            raise HostError(f"{self.setting.name}: the default did not move in {_PATIENCE_S:g} s")
        return max(moved_s) - cut_s


def _is_at_first(watch: Watch, far: str) -> bool:
    return watch.value(far) == DEVICE


def run() -> Report:
    sides: list[Side] = []
    with ExitStack() as stack:
        for setting in SETTINGS:
            world = stack.enter_context(World.up(load("two")))
            sides.append(Side(setting, world, Daemon(world, two_uplinks() + _QUICK)))
            sides[-1].prepare()
        for number in range(_TRIALS):
            for side in sides[:: -1 if number % 2 else 1]:
                side.trial()
    trials = {side.setting.name: side.trials for side in sides}
    figures = [figure for name in trials for figure in _figures(name, trials)]
    samples = {name: asdict(one) for name, one in trials.items()}
    return Report(_TITLE, _HOW, tuple(figures), (_table(trials),), samples, _NOTES)


def _figures(name: str, trials: dict[str, Trials]) -> Iterator[Figure]:
    own, base = trials[name], trials[_NONE]
    yield Figure(f"{name}: start, longest", max(own.start_s), "s", START_S)
    yield Figure(f"{name}: pause, longest", max(own.pause_s) * 1000, "ms", PAUSE_MS)
    yield Figure(f"{name}: failover, median", median(own.failover_s), "s")
    if own is not base:
        later_s = median(own.failover_s) - median(base.failover_s)
        yield Figure(f"{name}: later", later_s, "s", LATER_S)
    yield Figure(f"{name}: memory, median", median(own.rss_mib), "MiB")
    if own is not base:
        more_mib = median(own.rss_mib) - median(base.rss_mib)
        yield Figure(f"{name}: more", more_mib, "MiB", MORE_MIB)


def _table(trials: dict[str, Trials]) -> Table:
    heads = ("", "made in", "start", "pause", "failover", "memory", "processor")
    rows = tuple(
        (
            name,
            f"{it.laid_s:.1f} s",
            _spread(it.start_s, "s", 1),
            _spread(it.pause_s, "ms", 1000),
            _spread(it.failover_s, "s", 1),
            _spread(it.rss_mib, "MiB", 1),
            _spread(it.processor, "%", 100),
        )
        for name, it in trials.items()
    )
    return Table("Median, and longest or most", heads, rows)


def _spread(values: Sequence[float], unit: str, factor: float) -> str:
    return f"{median(values) * factor:.3g}, {max(values) * factor:.3g} {unit}"

"""`dns_failover`: an uplink dies; how long after detection its address leaves the DNS answers.

Rules: a client queries the server to see when an address is gone; the time of detection is the
daemon's own, on the same clock. The daemon is restarted without state before each trial.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bench import peers_dns
from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.failover_trials import BLACKHOLE, CARRIER, Cut, Gauge, intact
from bench.observer import Watch
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

_PROVIDER, _SURVIVOR = "isp-a", "isp-b"
_TRIALS = {BLACKHOLE.name: 20, CARRIER.name: 5}
_TTL_S = 10
_EVERY_S = 0.005
_CALM_S = 4.0  # for the loss model
_HOLD_S = 1.0
_PATIENCE_S = 30.0
_RECOVER_S = 0.3
_HOW = f"""\
The lab's world `two`. At a random time the provider of the first uplink stops forwarding while its
router still answers (*blackhole*), or the link loses its carrier. A client in the core queries the
name's A record every {_EVERY_S * 1000:g} ms: at the embedded server, on the other uplink's address;
or at BIND and Knot in the core, which the daemon updates by RFC 2136 with TSIG (HMAC-SHA256).
*Detected* is the time from just before the cut until the daemon declares the path down, *gone*
until the dead address is no longer in the answer. *Lag* is the difference; *return lag* is the same
when the path is up again. Default settings, except for a shorter recovery ({_RECOVER_S:g} s), which
only shortens the bench, and no `rate_limit`, because all queries come from one client."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """A way to publish the name. `more` returns config text, given the path of a key."""

    name: str
    more: Callable[[str], str]
    target_ms: float
    start: Callable[[World], None] = lambda world: None
    server: str = peers_dns.OUTSIDE[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds after the cut, and after its end; None if it didn't happen in time."""

    detected_s: float
    gone_s: float | None
    up_s: float
    back_s: float | None

    @property
    def lag_ms(self) -> float | None:
        return None if self.gone_s is None else (self.gone_s - self.detected_s) * 1000

    @property
    def return_lag_ms(self) -> float | None:
        return None if self.back_s is None else (self.back_s - self.up_s) * 1000


def _updated(key: str) -> str:
    server = f'{{ address = "{peers_dns.OUTSIDE[0]}", key = "{key}" }}'
    return f'[[dns.update]]\nzone = "{ZONE}"\nservers = [{server}]\n'


PUBLISHERS = (
    Publisher(
        "embedded", lambda _: f'[dns.server]\nzones = ["{ZONE}"]\nrate_limit = 0\n', 100, server=""
    ),
    Publisher("RFC 2136, BIND", _updated, 500, peers_dns.bind_updated),
    Publisher("RFC 2136, Knot", _updated, 500, peers_dns.knot_updated),
)
Trials = dict[tuple[str, str], list[Trial]]


def run() -> Report:
    jobs = [(publisher, cut) for cut in (BLACKHOLE, CARRIER) for publisher in PUBLISHERS]
    with ThreadPoolExecutor(len(PUBLISHERS)) as pool:
        series = list(pool.map(lambda job: attempts(*job), jobs))
    trials_by_case = {
        (p.name, cut.name): trials for (p, cut), trials in zip(jobs, series, strict=True)
    }
    samples = {" | ".join(key): list(map(asdict, trials)) for key, trials in trials_by_case.items()}
    heads = ("", "cut", "trials", "detected", "gone", "lag", "longest", "return lag", "longest")
    table = Table("Medians, unless longest", heads, tuple(_rows(trials_by_case)))
    return Report("DNS failover", _HOW, tuple(_figures(trials_by_case)), (table,), samples)


def attempts(publisher: Publisher, cut: Cut, count: int = 0) -> list[Trial]:
    """A series of trials in a world of its own."""
    with World.up(load("two")) as world, peers_dns.key_file() as key:
        publisher.start(world)
        more = f'[[dns.name]]\nname = "{ZONE}"\nttl = {_TTL_S}\n{publisher.more(str(key))}'
        health = f"[health]\nrecover_s = {_RECOVER_S}\n"
        daemon = Daemon(world, f"{two_uplinks()}\n{health}\n{more}")
        own = peers_dns.addresses_of(world, 4)
        server = publisher.server or own[_SURVIVOR]
        daemon.start()
        watch = Watch(world["core"], "dns", server, "53", ZONE, str(_EVERY_S))
        gauge = Gauge(watch, ZONE, " ".join(sorted(own.values())))
        trials = []
        for number in range(count or _TRIALS[cut.name]):
            if number:
                daemon.start_afresh()
            trials.append(_attempt(world, daemon, gauge, cut, own[_PROVIDER]))
    lags = ", ".join("never" if t.lag_ms is None else f"{t.lag_ms:.0f}" for t in trials)
    log(f"{publisher.name}, {cut.name}: {lags} ms")
    return trials


def _attempt(world: World, daemon: Daemon, gauge: Gauge, cut: Cut, address: str) -> Trial:
    intact(gauge)
    time.sleep(_CALM_S + random.random())
    cut_s = time.monotonic()
    with _cut(world, cut):
        gone_s = gauge.watch.when(
            gauge.key, lambda value: address not in value.split(), cut_s, _PATIENCE_S
        )
        detected_s = _since(daemon, "down")
        time.sleep(_HOLD_S)
        restored_s = time.monotonic()
    back_s = gauge.watch.when(
        gauge.key, lambda value: value == gauge.intact, restored_s, _PATIENCE_S
    )
    up_s = _since(daemon, "up")
    return Trial(
        detected_s - cut_s,
        None if gone_s is None else gone_s - cut_s,
        up_s - restored_s,
        None if back_s is None else back_s - restored_s,
    )


@contextmanager
def _cut(world: World, cut: Cut) -> Iterator[None]:
    cut.begin(world[_PROVIDER])
    try:
        yield
    finally:
        cut.end(world[_PROVIDER])


def _since(daemon: Daemon, state: str) -> float:
    """Wait until the path is in a state; return since when."""
    times_s: list[float] = []

    def is_reached() -> bool:
        times_s.extend(
            path.since_s
            for path in daemon.status().health
            if (path.uplink, path.family, path.state) == (_PROVIDER, 4, state)
        )
        return bool(times_s)

    eventually(is_reached, _PATIENCE_S, what=f"{_PROVIDER} IPv4 is {state}")
    return times_s[0]


# --- the report -----------------------------------------------------------------------------


def _figures(trials_by_case: Trials) -> Iterator[Figure]:
    for publisher in PUBLISHERS:
        for cut in (BLACKHOLE, CARRIER):
            trials = trials_by_case[publisher.name, cut.name]
            of = f"{publisher.name}, {cut.name}: "
            gone, back = _lags(trials), _return_lags(trials)
            yield Figure(f"{of}trials", len(trials))
            yield Figure(f"{of}lag, median", median(gone), "ms")
            yield Figure(f"{of}lag, p95", quantile(gone, 0.95), "ms")
            yield Figure(f"{of}lag, longest", max(gone), "ms", publisher.target_ms)
            yield Figure(f"{of}return lag, longest", max(back), "ms", publisher.target_ms)
            never = 2 * len(trials) - len(gone) - len(back)
            yield Figure(f"{of}never gone, or never back", never, target=0)


def _lags(trials: Sequence[Trial]) -> list[float]:
    return [trial.lag_ms for trial in trials if trial.lag_ms is not None]


def _return_lags(trials: Sequence[Trial]) -> list[float]:
    return [trial.return_lag_ms for trial in trials if trial.return_lag_ms is not None]


def _rows(trials_by_case: Trials) -> Iterator[tuple[str, ...]]:
    for (name, cut), trials in trials_by_case.items():
        lags = [(median(some), max(some)) for some in (_lags(trials), _return_lags(trials))]
        yield (
            name,
            cut,
            str(len(trials)),
            f"{median([trial.detected_s for trial in trials]) * 1000:.0f} ms",
            f"{median([t.gone_s for t in trials if t.gone_s is not None]) * 1000:.0f} ms",
            *(f"{value:.0f} ms" for pair in lags for value in pair),
        )

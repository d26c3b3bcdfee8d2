"""`dns_failover`: an uplink dies; how long after the daemon knew is its address gone from answers.

Rules: when an address is gone is seen from outside, by asking the server itself; when the daemon
knew is the daemon's own word, on the same clock. Each trial has a daemon started afresh.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bench import peers_dns
from bench.clock import say
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
_CALM_S = 4.0  # the line is learned
_HOLD_S = 1.0
_PATIENCE_S = 30.0
_RECOVER_S = 0.3
_HOW = f"""\
The lab's world `two`. At a random moment the provider of the first uplink forwards nothing any
more, while its router still answers (*blackhole*), or the link loses its carrier. A client in the
core asks for the name's A record every {_EVERY_S * 1000:g} ms: the embedded server at the other
uplink's address; BIND and Knot, which the daemon changes by RFC 2136 with TSIG (HMAC-SHA256), at
theirs, in the core, beyond both providers. *Detected* is the time from just before the command that
cuts until the daemon calls the path down; *gone* until an answer has lost the dead address; *lag*
is the difference, and *return lag* the same when the path is up again. Default settings, but for a
shorter recovery ({_RECOVER_S:g} s), which only shortens the bench, and no `rate_limit`, as one
client asks so often."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where the name is published. `more` is the config's text, given the path of a key."""

    name: str
    more: Callable[[str], str]
    target_ms: float
    start: Callable[[World], None] = lambda world: None
    server: str = peers_dns.OUTSIDE[0]


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds after the cut, and after its end; None for what didn't happen in time."""

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


OUTLETS = (
    Outlet(
        "embedded", lambda _: f'[dns.server]\nzones = ["{ZONE}"]\nrate_limit = 0\n', 100, server=""
    ),
    Outlet("RFC 2136, BIND", _updated, 500, peers_dns.bind_updated),
    Outlet("RFC 2136, Knot", _updated, 500, peers_dns.knot_updated),
)
Found = dict[tuple[str, str], list[Trial]]


def run() -> Report:
    jobs = [(outlet, cut) for cut in (BLACKHOLE, CARRIER) for outlet in OUTLETS]
    with ThreadPoolExecutor(len(OUTLETS)) as pool:
        series = list(pool.map(lambda job: attempts(*job), jobs))
    found = {(o.name, cut.name): trials for (o, cut), trials in zip(jobs, series, strict=True)}
    samples = {" | ".join(key): list(map(asdict, trials)) for key, trials in found.items()}
    heads = ("", "cut", "trials", "detected", "gone", "lag", "longest", "return lag", "longest")
    table = Table("Medians, unless longest:", heads, tuple(_rows(found)))
    title = "From a dead uplink to the DNS"
    return Report(title, _HOW, tuple(_figures(found)), (table,), samples)


def attempts(outlet: Outlet, cut: Cut, count: int = 0) -> list[Trial]:
    """A series of trials in a world of its own."""
    with World.up(load("two")) as world, peers_dns.key_file() as key:
        outlet.start(world)
        more = f'[[dns.name]]\nname = "{ZONE}"\nttl = {_TTL_S}\n{outlet.more(str(key))}'
        health = f"[health]\nrecover_s = {_RECOVER_S}\n"
        daemon = Daemon(world, f"{two_uplinks()}\n{health}\n{more}")
        own = peers_dns.addresses_of(world, 4)
        server = outlet.server or own[_SURVIVOR]
        daemon.start()
        watch = Watch(world["core"], "dns", server, "53", ZONE, str(_EVERY_S))
        gauge = Gauge(watch, ZONE, " ".join(sorted(own.values())))
        trials = []
        for number in range(count or _TRIALS[cut.name]):
            if number:
                daemon.start_afresh()
            trials.append(_attempt(world, daemon, gauge, cut, own[_PROVIDER]))
    lags = ", ".join("never" if t.lag_ms is None else f"{t.lag_ms:.0f}" for t in trials)
    say(f"{outlet.name}, {cut.name}: {lags} ms")
    return trials


def _attempt(world: World, daemon: Daemon, gauge: Gauge, cut: Cut, address: str) -> Trial:
    intact(gauge)
    time.sleep(_CALM_S + random.random())
    cut_s = time.monotonic()
    with _suffering(world, cut):
        gone_s = gauge.watch.when(
            gauge.key, lambda value: address not in value.split(), cut_s, _PATIENCE_S
        )
        detected_s = _since(daemon, "down")
        time.sleep(_HOLD_S)
        mend_s = time.monotonic()
    back_s = gauge.watch.when(gauge.key, lambda value: value == gauge.intact, mend_s, _PATIENCE_S)
    up_s = _since(daemon, "up")
    return Trial(
        detected_s - cut_s,
        None if gone_s is None else gone_s - cut_s,
        up_s - mend_s,
        None if back_s is None else back_s - mend_s,
    )


@contextmanager
def _suffering(world: World, cut: Cut) -> Iterator[None]:
    cut.begin(world[_PROVIDER])
    try:
        yield
    finally:
        cut.end(world[_PROVIDER])


def _since(daemon: Daemon, state: str) -> float:
    """Since when the path is in a state, in which it will soon be."""
    found: list[float] = []

    def is_in_it() -> bool:
        found.extend(
            path.since_s
            for path in daemon.status().health
            if (path.uplink, path.family, path.state) == (_PROVIDER, 4, state)
        )
        return bool(found)

    eventually(is_in_it, _PATIENCE_S, what=f"{_PROVIDER} IPv4 is {state}")
    return found[0]


# --- told -----------------------------------------------------------------------------------


def _figures(found: Found) -> Iterator[Figure]:
    for outlet in OUTLETS:
        for cut in (BLACKHOLE, CARRIER):
            trials = found[outlet.name, cut.name]
            of = f"{outlet.name}, {cut.name}: "
            gone, back = _lags(trials), _return_lags(trials)
            yield Figure(f"{of}trials", len(trials))
            yield Figure(f"{of}lag, median", median(gone), "ms")
            yield Figure(f"{of}lag, p95", quantile(gone, 0.95), "ms")
            yield Figure(f"{of}lag, longest", max(gone), "ms", outlet.target_ms)
            yield Figure(f"{of}return lag, longest", max(back), "ms", outlet.target_ms)
            never = 2 * len(trials) - len(gone) - len(back)
            yield Figure(f"{of}never gone, or never back", never, target=0)


def _lags(trials: Sequence[Trial]) -> list[float]:
    return [trial.lag_ms for trial in trials if trial.lag_ms is not None]


def _return_lags(trials: Sequence[Trial]) -> list[float]:
    return [trial.return_lag_ms for trial in trials if trial.return_lag_ms is not None]


def _rows(found: Found) -> Iterator[tuple[str, ...]]:
    for (name, cut), trials in found.items():
        lags = [(median(some), max(some)) for some in (_lags(trials), _return_lags(trials))]
        yield (
            name,
            cut,
            str(len(trials)),
            f"{median([trial.detected_s for trial in trials]) * 1000:.0f} ms",
            f"{median([t.gone_s for t in trials if t.gone_s is not None]) * 1000:.0f} ms",
            *(f"{value:.0f} ms" for pair in lags for value in pair),
        )

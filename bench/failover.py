"""`failover`: an uplink dies; how long until the host, or a name, has left it, and is back.

Rules: measured from outside the system: where the kernel would send a packet, or which addresses a
DNS server returns. A trial begins at a random time between two probes. Slow systems run in parallel
worlds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

from bench.daemon import Daemon, two_uplinks
from bench.failover_trials import (
    BLACKHOLE,
    CARRIER,
    Cut,
    Gauge,
    Job,
    System,
    Trial,
    Trials,
    watch_idly,
)
from bench.failover_trials import run as run_jobs
from bench.observer import Watch
from bench.peers_monitors import DEVICE, FAR, gdnsd, keepalived, lsm, powerdns
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from ifdefault.lab import faults
from ifdefault.lab.world import World

_WORLDS = 5  # at a time, beside the slow peers'
_LOSS = 1  # per cent
_DELAY_MS = 25  # each way
_CALM_S = 10.0
_IDLE_S = 300.0
_HOW = f"""\
The lab's world `two`. At a random time the provider of the first uplink stops forwarding in both
directions while its router still answers (*blackhole*), or the link loses its carrier. *Down* is
the time from just before that command until the kernel's route to the client has moved to the other
uplink, or until the DNS server's answer no longer has the dead address. *Up* is the time from just
before the command that ends the fault until everything is as before. *False alarms* are counted in
{_IDLE_S / 60:g} minutes without a fault, at {_LOSS} % loss in each direction.

The kernel is queried at each of its notifications and every 20 ms, the DNS server every 10 ms.

**ifdefault** runs with default settings, except for ranks that make the first uplink primary: one
ICMP probe every 500 ms for each path (uplink and family), and bursts after a loss. A trial's time
is that of the slower family. The daemon is restarted without state before each trial, because
damping keeps an uplink that failed recently down for longer, and has {_CALM_S:g} s before the
fault. The peers aren't restarted; lsm and keepalived, as configured here, are IPv4 only.

**lsm** pings the client over each uplink; its event script deletes and restores the default route
of the first uplink (one with a higher metric remains for lsm's own sockets). **keepalived** has a
VRRP instance without a peer on the first uplink's interface, with the default as a virtual route; a
`track_script` pings over that interface. **gdnsd** (`multifo`, `tcp_connect`) and **PowerDNS**
(`ifportup` with `selector='all'`) run on the client and check port 80 of both of the host's
addresses. For these two the time for which resolvers cache an old answer is not included. Only
keepalived and ifdefault watch the carrier; when it is lost, the provider's router soon reports the
host unreachable to gdnsd and PowerDNS. *Steady* settings are the fastest that we found with which a
single lost packet is no failure (a TCP connection needs its second SYN, after 1 s)."""


class _Ours:
    """ifdefault in any number of worlds."""

    def __init__(self) -> None:
        self._daemons: dict[str, Daemon] = {}

    def start(self, world: World) -> Sequence[Gauge]:
        self._daemons[world.name] = daemon = Daemon(world, two_uplinks())
        daemon.start()
        watch = Watch(world["host"], "route", *FAR)
        return [Gauge(watch, far, DEVICE) for far in FAR]

    def again(self, world: World) -> None:
        self._daemons[world.name].start_afresh()


def _add_loss(world: World) -> None:
    for provider in ("isp-a", "isp-b"):
        faults.inject(world, "loss", provider, _LOSS)


def _add_delay(world: World) -> None:
    for provider in ("isp-a", "isp-b"):
        faults.inject(world, "delay", provider, _DELAY_MS)


def _add_delay_and_loss(world: World) -> None:
    _add_delay(world)
    _add_loss(world)


_ours = _Ours()
_DEFAULT = System(
    "ifdefault", "default", "2/s", _ours.start, calm_s=_CALM_S, up_s=30.0, again=_ours.again
)
_DISTANT = replace(_DEFAULT, settings=f"default, RTT {2 * _DELAY_MS} ms", prepare=_add_delay)
_LOSSY = replace(
    _DEFAULT,
    settings=f"default, RTT {2 * _DELAY_MS} ms, {_LOSS} % loss",
    prepare=_add_delay_and_loss,
)

_PING = f"exec ping -q -n -c 1 -W 1 -I {DEVICE} {FAR[0]}\n"
_THREE_PINGS = f"""\
for far in 198.18.1.10 198.18.1.11 198.18.2.10; do
    ping -q -n -c 1 -W 0.3 -I {DEVICE} $far && exit
done
exit 1
"""
_QUICK_LSM = lsm(interval_ms=100, timeout_ms=300, max_successive_pkts_lost=4)
_FAST_VRRP = "version 3\n  advert_int 0.1"

_LSM = System("lsm", "default: each 1 s, 7 in a row", "1/s", lsm(), up_s=150.0)
_GDNSD = System(
    "gdnsd",
    "default: each 10 s, 10 failures",
    "0.1/s",
    gdnsd(),
    period_s=10.0,
    down_s=150.0,
    up_s=300.0,
)
_PEERS = (
    System("lsm", "steady: each 100 ms, 4 in a row", "10/s", _QUICK_LSM),
    System("keepalived", "default: each 1 s, one target", "1/s", keepalived(_PING)),
    System(
        "keepalived",
        "steady: each 1 s, three targets in turn, 0.3 s each; advert_int 0.1",
        "1/s",
        keepalived(_THREE_PINGS, advert=_FAST_VRRP, rise=2),
    ),
    System(
        "gdnsd",
        "quickest: each 2 s, timeout 1 s, 1 failure",
        "0.5/s",
        gdnsd(interval=2, timeout=1, down_thresh=1, ok_thresh=1, up_thresh=2),
        period_s=2.0,
    ),
    System(
        "gdnsd",
        "steady: each 3 s, timeout 2 s, 1 failure",
        "0.33/s",
        gdnsd(interval=3, timeout=2, down_thresh=1, ok_thresh=1, up_thresh=2),
        period_s=3.0,
    ),
    System("PowerDNS", "default: each 5 s, timeout 2 s", "0.2/s", powerdns(), period_s=5.0),
    System("PowerDNS", "quickest: each 1 s, timeout 1 s", "1/s", powerdns(interval_s=1, timeout=1)),
    System("PowerDNS", "steady: each 1 s, timeout 2 s", "1/s", powerdns(interval_s=1)),
)


def run() -> Report:
    ours = [Job(_DEFAULT, BLACKHOLE, 5)] * 10 + [Job(_DEFAULT, CARRIER, 4)] * 5
    ours += [Job(_DISTANT, BLACKHOLE, 4)] * 5 + [Job(_LOSSY, BLACKHOLE, 4)] * 5
    slow = [Job(_GDNSD, BLACKHOLE, 1)] * 3 + [Job(_LSM, BLACKHOLE, 2)] * 3
    peers = [Job(system, BLACKHOLE, 5) for system in _PEERS] * 2
    peers += [Job(system, CARRIER, 5) for system in _PEERS]
    watched = [replace(system, prepare=_add_loss) for system in (*_PEERS, _LSM, _GDNSD, _DEFAULT)]
    with ThreadPoolExecutor(2) as pool:
        slowly = pool.submit(run_jobs, slow, len(slow))
        trials_by_case = run_jobs(ours, _WORLDS)
        alarms = pool.submit(watch_idly, watched, _IDLE_S)
        trials_by_case.update(run_jobs(peers, _WORLDS))
        trials_by_case.update(slowly.result())
        false_alarms = alarms.result()
    samples = {
        "trials": {
            " | ".join(key): list(map(asdict, trials)) for key, trials in trials_by_case.items()
        },
        "false alarms": false_alarms,
    }
    return Report(
        "Failover",
        _HOW,
        tuple(_figures(trials_by_case)),
        _tables(trials_by_case, false_alarms),
        samples,
    )


def _last(times: Sequence[tuple[float | None, ...]]) -> list[float]:
    """When the last gauge of each trial changed; without trials where one never did."""
    return [max(filter(None, trial)) for trial in times if None not in trial]


def _downs(trials: Sequence[Trial]) -> list[float]:
    return _last([trial.down_s for trial in trials])


def _ups(trials: Sequence[Trial]) -> list[float]:
    return _last([trial.up_s for trial in trials])


def _figures(trials_by_case: Trials) -> Iterator[Figure]:
    for system in (_DEFAULT, _DISTANT, _LOSSY):
        trials = trials_by_case[system.title, BLACKHOLE.name]
        of, down_s = f"{system.settings}, blackhole: ", _downs(trials)
        yield Figure(f"{of}trials", len(trials))
        yield Figure(f"{of}down, median", median(down_s), "s", 0.8)
        yield Figure(f"{of}down, p95", quantile(down_s, 0.95), "s", 1.2)
        yield Figure(f"{of}down, longest", max(down_s), "s")
        yield from _recovery(of, trials)
    trials = trials_by_case[_DEFAULT.title, CARRIER.name]
    of, down_s = f"{_DEFAULT.settings}, carrier: ", _downs(trials)
    yield Figure(f"{of}trials", len(trials))
    yield Figure(f"{of}down, median", median(down_s) * 1000, "ms")
    yield Figure(f"{of}down, longest", max(down_s) * 1000, "ms", 100)
    yield from _recovery(of, trials)


def _recovery(of: str, trials: Sequence[Trial]) -> Iterator[Figure]:
    never = sum(None in (*trial.down_s, *trial.up_s) for trial in trials)
    first = min(time for trial in trials for time in trial.up_s if time is not None)
    yield Figure(f"{of}recovery, shortest", first, "s", 2, at_least=True)
    yield Figure(f"{of}recovery, longest", max(_ups(trials)), "s", 5)
    yield Figure(f"{of}never moved, or never returned", never, target=0)
    yield Figure(f"{of}false alarms", sum(trial.false_alarms for trial in trials), target=0)


def _tables(trials_by_case: Trials, false_alarms: dict[str, int]) -> tuple[Table, ...]:
    systems = (_DEFAULT, _DISTANT, _LOSSY, _LSM, _PEERS[0], *_PEERS[1:3], _GDNSD, *_PEERS[3:])
    heads = ("system", "settings", "probes", "trials", "down, median", "longest", "up, median")
    all_heads = (*heads, "longest", "false alarms")
    return (
        Table(
            "Blackhole, in seconds",
            all_heads,
            tuple(_rows(systems, BLACKHOLE, trials_by_case, false_alarms)),
        ),
        Table(
            "Carrier lost, in seconds",
            all_heads[:-1],
            tuple(_rows(systems, CARRIER, trials_by_case)),
        ),
    )


def _rows(
    systems: Sequence[System],
    cut: Cut,
    trials_by_case: Trials,
    false_alarms: dict[str, int] | None = None,
) -> Iterator[tuple[str, ...]]:
    for system in systems:
        if trials := trials_by_case.get((system.title, cut.name)):
            times = [*_spread(_downs(trials)), *_spread(_ups(trials))]
            alarms = [] if false_alarms is None else [str(false_alarms.get(system.title, ""))]
            yield system.name, system.settings, system.pace, str(len(trials)), *times, *alarms


def _spread(times: Sequence[float]) -> tuple[str, str]:
    if not times:
        return "never", "never"
    return f"{median(times):.2f}", f"{max(times):.2f}"

"""`dns_clients`: clients by name, through a resolver, while a provider fails and returns.

Rules: the result is what the clients see. All variants have the same host, resolver, TTL and
outage, which begins at a random time in the life of the resolver's cached answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from bench import peers_dns
from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.failover_trials import BLACKHOLE, Cut
from bench.results import Figure, Report, Table
from bench.stats import median
from bench.subject import Subject
from ifdefault.kernel import nft
from ifdefault.lab import dns, lookup, services
from ifdefault.lab.clients_by_name import CONNECT_S, Visit, Visits
from ifdefault.lab.node import Node
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World

TTL_S = 10
PER_S = 100.0
_PROVIDER = "isp-a"
_CALM_S = 3.0
_DEAD_S = 20.0
_RESTORED_S = 25.0
_WORLDS = 2
_TRIALS = 3
_STATIC = f"{dns.STATIC}.example"
_HOW = f"""\
The lab's world `two`. A client makes {PER_S:g} new TCP connections a second, half of them by IPv4.
Each resolves the name through unbound, uses the first address of the answer, and has *failed* if
nothing is echoed within {CONNECT_S:g} s. All TTLs are {TTL_S} s. After {_CALM_S:g} to
{_CALM_S + TTL_S:g} s the provider of the first uplink forwards nothing for {_DEAD_S:g} s while its
router still answers (*blackhole*), or drops only TCP and UDP (*unseen*: our ICMP probes pass).

BIND serves the root zone and the parent zone; BIND and unbound are in the core, between client and
host. unbound has its default settings except for those named.

**ifdefault** serves the zone on the addresses of both uplinks, which are its two name servers in
the parent zone; the daemon has default settings. *Rotate*, *arrival* and *arrival-only* are
policies. `arrival` puts the addresses of the uplink that the query came in by first, but unbound
rotates them. `arrival-only` returns only those addresses, so the resolver's choice of name server
decides. unbound considers a name server that didn't answer dead for up to 900 s
(`infra-host-ttl`), unless `infra-cache-max-rtt` limits its back-off.

The other variants have our return path on the host (`ifdefault apply`, no daemon), so that both
addresses answer. **Round robin** is both addresses as static records in the parent zone. **gdnsd**
(`multifo`) and **PowerDNS** (`ifportup`, `selector='all'`) serve the zone from the core, beyond the
providers, at the fastest settings that we found, and connect to port 80 of each address. On the
host itself their checks wouldn't leave it.

*Detected* is the time from just before the cut until the daemon declares the slower of the two
families down. *Last failure* is the begin of the last failed connection. unbound counts whole
seconds, so it may keep an answer for one second longer than its TTL. *Back* is the time from just
before the end of the outage until an address of that uplink is used again."""


@dataclass(frozen=True, slots=True)
class Variant:
    """`serve` makes `visited` resolve, and returns the daemon if there is one."""

    name: str
    settings: str
    serve: Callable[[World], Daemon | None]
    visited: str = ZONE
    at_once: bool = True  # whether an answer has the addresses of all uplinks

    @property
    def title(self) -> str:
        return f"{self.name}, {self.settings}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The effect of one outage. Times are seconds after the cut; `back_s`: after its end."""

    visits: int
    failed: int
    detected_s: float | None
    last_failed_s: float
    back_s: float | None
    by_second: list[tuple[int, int, int]]  # after the cut: begun, failed


def _ours(policy: str, **options: str) -> Callable[[World], Daemon]:
    """`options` are the resolver's."""

    def serve(world: World) -> Daemon:
        dns.start(world, options={key.replace("_", "-"): text for key, text in options.items()})
        text = f'[[dns.name]]\nname = "{ZONE}"\npolicy = "{policy}"\nttl = {TTL_S}\n'
        text += f'[dns.server]\nzones = ["{ZONE}"]\n'
        daemon = Daemon(world, f"{two_uplinks()}\n{text}")
        daemon.start()
        return daemon

    return serve


def _static(world: World) -> None:
    Subject(world).apply()
    dns.start(world, static_ttl_s=TTL_S)


def _gdnsd(world: World) -> None:
    Subject(world).apply()
    peers_dns.gdnsd_watching(
        world, TTL_S, interval=2, timeout=1, down_thresh=1, ok_thresh=1, up_thresh=2
    )
    dns.start(world, delegations=peers_dns.DELEGATED)


def _powerdns(world: World) -> None:
    Subject(world).apply()
    peers_dns.powerdns_watching(world, TTL_S, interval_s=1, timeout_s=1)
    dns.start(world, delegations=peers_dns.DELEGATED)


_UNSEEN_RULE = "meta l4proto { tcp, udp } drop"


def _drop_unseen(node: Node) -> None:
    hook = "type filter hook forward priority -20; policy accept;"
    text = f"add table inet cut {{ chain forward {{ {hook} {_UNSEEN_RULE}; }}; }}"
    node.python(partial(nft.run, text))


UNSEEN = Cut("unseen", _drop_unseen, BLACKHOLE.end)
_ROTATE = Variant("ifdefault", "rotate", _ours("rotate"))
_ARRIVAL = Variant("ifdefault", "arrival", _ours("arrival"))
_ARRIVAL_ONLY = Variant("ifdefault", "arrival-only", _ours("arrival-only"), at_once=False)
_ARRIVAL_MAX_RTT = Variant(
    "ifdefault",
    "arrival-only, unbound's infra-cache-max-rtt 400 ms",
    _ours("arrival-only", infra_cache_max_rtt="400"),
    at_once=False,
)
_PLAIN = Variant("round robin", "static records", _static, _STATIC)
_GDNSD = Variant("gdnsd", "each 2 s, timeout 1 s, 1 failure", _gdnsd)
_POWERDNS = Variant("PowerDNS", "each 1 s, timeout 1 s", _powerdns)
_OURS = (_ROTATE, _ARRIVAL, _ARRIVAL_ONLY, _ARRIVAL_MAX_RTT)
_BLACKHOLE = (*_OURS, _GDNSD, _POWERDNS, _PLAIN)
_UNSEEN = (_ROTATE, _ARRIVAL_ONLY)

Outcomes = dict[tuple[str, str], list[Outcome]]  # by variant and cut


def run() -> Report:
    jobs = [(variant, BLACKHOLE) for variant in _BLACKHOLE for _ in range(_TRIALS)]
    jobs += [(variant, UNSEEN) for variant in _UNSEEN]
    outcomes: Outcomes = {}
    with ThreadPoolExecutor(_WORLDS) as pool:
        results = pool.map(lambda job: attempt(*job), jobs)
        for (variant, cut), outcome in zip(jobs, results, strict=True):
            outcomes.setdefault((variant.title, cut.name), []).append(outcome)
    samples = {" | ".join(key): list(map(asdict, some)) for key, some in outcomes.items()}
    title, figures = "Clients by name while a provider fails", tuple(_figures(outcomes))
    return Report(title, _HOW, figures, _tables(outcomes), samples)


def attempt(variant: Variant, cut: Cut) -> Outcome:
    """One outage in a world of its own."""
    with World.up(load("two")) as world:
        services.builtin(world["host"])
        services.nginx(world["host"])
        daemon = variant.serve(world)
        _await_addresses(world, variant)
        visits = Visits(world["client"], dns.RESOLVER[0], [variant.visited], per_s=PER_S)
        time.sleep(_CALM_S + random.uniform(0, TTL_S))
        cut_s = time.monotonic()
        cut.begin(world[_PROVIDER])
        time.sleep(_DEAD_S)
        detected_s = _detected(daemon)
        restored_s = time.monotonic()
        cut.end(world[_PROVIDER])
        time.sleep(_RESTORED_S)
        begun = visits.stop()
        addresses = {t.address for t in world.topology.targets() if t.provider == _PROVIDER}
    outcome = evaluate(begun, addresses, cut_s, restored_s, detected_s)
    log(f"{variant.title}, {cut.name}: {outcome.failed} of {outcome.visits} failed")
    return outcome


def _await_addresses(world: World, variant: Variant) -> None:
    """Until the resolver has addresses of both families, and of both uplinks."""
    all_addresses = {target.address for target in world.topology.targets()}

    def resolves() -> bool:
        ask = partial(lookup.resolve_both, dns.RESOLVER[0], variant.visited)
        addresses = set(world["core"].python(ask))
        if variant.at_once:
            return addresses == all_addresses
        return len({":" in address for address in addresses}) == 2

    eventually(resolves, 60.0, what=f"{variant.visited} resolves", poll_s=0.2)


def _detected(daemon: Daemon | None) -> float | None:
    """When the daemon declared both paths down, on the monotonic clock."""
    if daemon is None:
        return None
    health = daemon.status().health
    down = [path for path in health if path.uplink == _PROVIDER and path.state == "down"]
    return max(path.since_s for path in down) if len(down) == 2 else None


def evaluate(
    begun: Sequence[Visit],
    addresses: set[str],
    cut_s: float,
    restored_s: float,
    detected_s: float | None,
) -> Outcome:
    failed = [visit for visit in begun if not visit.ok]
    back = [visit.at_s for visit in begun if visit.at_s > restored_s and visit.address in addresses]
    seconds: dict[int, list[Visit]] = {}
    for visit in begun:
        seconds.setdefault(int((visit.at_s - cut_s) // 1), []).append(visit)
    return Outcome(
        visits=len(begun),
        failed=len(failed),
        detected_s=None if detected_s is None else detected_s - cut_s,
        last_failed_s=max((visit.at_s for visit in failed), default=cut_s) - cut_s,
        back_s=min(back) - restored_s if back else None,
        by_second=[
            (second, len(some), sum(not visit.ok for visit in some))
            for second, some in sorted(seconds.items())
        ],
    )


# --- the report -----------------------------------------------------------------------------


def _figures(outcomes: Outcomes) -> Iterator[Figure]:
    for variant in _OURS:
        trials = outcomes[variant.title, BLACKHOLE.name]
        of = f"{variant.title}, blackhole: "
        yield Figure(f"{of}trials", len(trials))
        yield Figure(f"{of}failed connections, median", median([t.failed for t in trials]))
        seen = [t for t in trials if t.detected_s is not None]
        after = max(t.last_failed_s - (t.detected_s or 0.0) for t in trials)
        yield Figure(f"{of}last failure after detection, longest", after, "s", TTL_S + 1)
        yield Figure(f"{of}outages that weren't detected", len(trials) - len(seen), target=0)
        never = sum(t.back_s is None for t in trials)
        target = 0 if variant.at_once else None  # otherwise the resolver chooses
        yield Figure(f"{of}not back on both uplinks", never, target=target)
    for variant in (_GDNSD, _POWERDNS, _PLAIN):
        trials = outcomes[variant.title, BLACKHOLE.name]
        failed = median([t.failed for t in trials])
        yield Figure(f"{variant.title}, blackhole: failed connections, median", failed)
    for variant in _UNSEEN:
        (trial,) = outcomes[variant.title, UNSEEN.name]
        yield Figure(f"{variant.title}, unseen: failed connections", trial.failed)


def _tables(outcomes: Outcomes) -> tuple[Table, ...]:
    counts, times = ("outages", "connections", "failed"), ("detected", "last failure", "back")
    heads = ("", "settings", *counts, *times)
    spans = [*range(-1, int(_DEAD_S) + 1), int(_DEAD_S) + 5, int(_DEAD_S) + 10]
    shares = ("", "settings", *(f"{second} s" for second in spans))
    return (
        Table("Blackhole; medians", heads, tuple(_rows(_BLACKHOLE, BLACKHOLE, outcomes))),
        Table("Unseen by our probes", heads, tuple(_rows(_UNSEEN, UNSEEN, outcomes))),
        Table(
            "Blackhole; failed connections in a second, in per cent, by seconds after the cut",
            shares,
            tuple(_shares(_BLACKHOLE, outcomes, spans)),
        ),
    )


def _rows(variants: Sequence[Variant], cut: Cut, outcomes: Outcomes) -> Iterator[tuple[str, ...]]:
    for variant in variants:
        trials = outcomes[variant.title, cut.name]
        detected = [t.detected_s for t in trials if t.detected_s is not None]
        back = [t.back_s for t in trials if t.back_s is not None]
        yield (
            variant.name,
            variant.settings,
            str(len(trials)),
            f"{median([t.visits for t in trials]):.0f}",
            f"{median([t.failed for t in trials]):.0f}",
            f"{median(detected):.2f} s" if detected else "",
            f"{median([t.last_failed_s for t in trials]):.1f} s",
            f"{median(back):.1f} s" if back else "never",
        )


def _shares(
    variants: Sequence[Variant], outcomes: Outcomes, spans: Sequence[int]
) -> Iterator[tuple[str, ...]]:
    for variant in variants:
        trials = outcomes[variant.title, BLACKHOLE.name]
        begun, failed = dict.fromkeys(spans, 0), dict.fromkeys(spans, 0)
        for second, some, bad in (row for trial in trials for row in trial.by_second):
            if second in begun:
                begun[second] += some
                failed[second] += bad
        shares = [100 * failed[s] / begun[s] if begun[s] else 0.0 for s in spans]
        yield variant.name, variant.settings, *(f"{share:.0f}" for share in shares)

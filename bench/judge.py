"""`judge`: the failure detector's false alarms and delay, compared with peers and with theory.

Rules: our figures are of the daemon's own code, on simulated links. A path begins without history.
Peers get links of the same kind; a setting of a peer is *good* for a link if it gives no more false
alarms there than our target.
"""

from __future__ import annotations

import math
import multiprocessing
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import judge_ours, judge_peers
from bench.clock import log
from bench.judge_links import (
    BURST_EVERY_S,
    BURST_S,
    CASES,
    CLEAN,
    ONE_PERCENT,
    POLICED,
    POLICED_PER_S,
    Case,
)
from bench.judge_peers import DEFAULTS, SWEEP, Alarms, Rule
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from ifdefault.health import Memory
from ifdefault.model.config import HealthConfig

PATHS, DAYS = 5, 60.0  # for each link
PEER_DAYS = 60.0
TRIALS, PEER_TRIALS = 400, 100
ALARMS_PER_30_DAYS = 1.0
MEDIAN_S, P95_S = 0.8, 1.2
RTTS_S = (0.005, 0.03, 0.05, 0.1, 0.3)
POLICED_PATHS, POLICED_DAYS = 6, 5.0
LEAPS_S = (0.7, 1.2)
LEAP_DOWN_S = 3.0
_HOW = f"""\
The daemon's failure detector on simulated links: independent loss of 0, 1, 5 and 20 %, and bursts
of total loss of {BURST_S * 1000:g} ms on average, one in {BURST_EVERY_S / 60:g} minutes
(Gilbert-Elliott). *False alarms*: {PATHS} paths of {DAYS:g} days each on each link, without history
at the start; the link is up throughout. *Delay*: from the death of the link until the path is down,
over {TRIALS} deaths at random times: *new* after five minutes, *learned* with the loss model after
all days. The round trip is {judge_ours.RTT_S * 1000:g} ms, all four targets answer, and there are
two rounds a second. The time of processes and kernel isn't included.

*Policed*: {POLICED_PATHS} paths of {POLICED_DAYS:g} days each on links that lose 12 % in each
direction, and drop probes of more than {POLICED_PER_S:g} a second on a path, after a burst of as
many. *Leaps*: after five minutes the round trip is suddenly as long as that; the loss stays 1 %.
{TRIALS} times, watched for {judge_ours.LEAPT_S / 60:g} minutes each."""
_BOUND = """\
*Bound* is the shortest median delay that is possible with one false alarm in {days:g} days, if the
link's losses are known exactly, rounds come twice a second and every 50 ms from the first loss on,
and each answer takes exactly one round trip. A dead link answers nothing, so CUSUM, which is
optimal for known distributions (Lorden 1971, Moustakides 1986), is a count of losses in a row: as
many as occur once in that time on a link that is up. For bursts it is the length that occurs once
in that time."""


@dataclass(frozen=True, slots=True)
class Ours:
    """Our results on one link."""

    case: Case
    days: float
    falls_s: tuple[tuple[float, ...], ...]  # of each path
    rounds: int
    new_s: tuple[float, ...]
    learned_s: tuple[float, ...]

    @property
    def falls(self) -> int:
        return sum(map(len, self.falls_s))

    @property
    def per_30_days(self) -> float:
        return self.falls / self.days * 30


@dataclass(frozen=True, slots=True)
class Theirs:
    rule: Rule
    case: Case
    alarms: Alarms
    delays_s: tuple[float, ...]  # of the trials in which it wasn't down already
    dead_share: float

    @property
    def is_good(self) -> bool:
        return self.alarms.per_30_days <= ALARMS_PER_30_DAYS and self.dead_share <= 0.01


def run(scale: float = 1.0) -> Report:
    """`scale` shortens everything, for a trial run."""
    days, peer_days = DAYS * scale, PEER_DAYS * scale
    trials, peer_trials = max(20, int(TRIALS * scale)), max(20, int(PEER_TRIALS * scale))
    log(f"{len(CASES)} links, {PATHS} paths of {days:g} days each, and {len(SWEEP)} peers' rules")
    # the longest first
    watching = [(c, days, seed) for c in reversed(CASES) for seed in range(1, PATHS + 1)]
    watching.sort(key=lambda job: -job[0].ratio)
    policing = [(POLICED, POLICED_DAYS * scale, seed) for seed in range(1, POLICED_PATHS + 1)]
    rules = [(r, c, peer_days, peer_trials) for r in (*DEFAULTS, *SWEEP) for c in CASES]
    with multiprocessing.get_context("forkserver").Pool() as pool:
        watched = pool.starmap_async(_watch, watching, chunksize=1)
        policed = pool.starmap_async(_watch, policing, chunksize=1)
        leapt = pool.starmap_async(_leaps, [(to_s, trials) for to_s in LEAPS_S], chunksize=1)
        measured = pool.starmap_async(_measure_peer, rules, chunksize=1)
        seen = dict(zip([(c.name, seed) for c, _, seed in watching], watched.get(), strict=True))
        dying = [(c, trials, [seen[c.name, s].memory for s in range(1, PATHS + 1)]) for c in CASES]
        delays = pool.starmap(_delays, dying, chunksize=1)
        rtts = pool.starmap(_rtt_delays, [(rtt_s, trials) for rtt_s in RTTS_S], chunksize=1)
        theirs = measured.get()
        beyond = [*_policed_figures(policed.get()), *_leap_figures(leapt.get())]
    ours = [
        _ours(case, [seen[case.name, seed] for seed in range(1, PATHS + 1)], *delay)
        for case, delay in zip(CASES, delays, strict=True)
    ]
    return _report(ours, dict(zip(RTTS_S, rtts, strict=True)), theirs, beyond)


# --- measuring, in parallel processes -----------------------------------------------------


def _watch(case: Case, days: float, seed: int) -> judge_ours.Watched:
    return judge_ours.watch(case, days, seed)


def _delays(case: Case, trials: int, memories: Sequence[Memory]) -> tuple[list[float], list[float]]:
    part = random.Random(case.name).random
    new = [judge_ours.delay_s(case, 1000 + at, part()) for at in range(trials)]
    learned = [
        judge_ours.delay_s(case, 5000 + at, part(), learned=memories[at % len(memories)])
        for at in range(trials)
    ]
    return new, learned


def _rtt_delays(rtt_s: float, trials: int) -> list[float]:
    part = random.Random(str(rtt_s)).random
    return [judge_ours.delay_s(ONE_PERCENT, 9000 + at, part(), rtt_s) for at in range(trials)]


def _leaps(to_s: float, trials: int) -> list[judge_ours.Leap]:
    part = random.Random(f"leap {to_s}").random
    return [judge_ours.leap(ONE_PERCENT, 7000 + at, part(), to_s) for at in range(trials)]


def _measure_peer(rule: Rule, case: Case, days: float, trials: int) -> Theirs:
    part = random.Random(f"{case.name} {rule.settings}").random
    delays = [judge_peers.delay_s(rule, case, at, part()) for at in range(trials)]
    known = tuple(delay for delay in delays if not math.isnan(delay))
    return Theirs(
        rule, case, judge_peers.watch(rule, case, days, 1), known, 1 - len(known) / trials
    )


def _ours(
    case: Case, seen: Sequence[judge_ours.Watched], new: Iterable[float], learned: Iterable[float]
) -> Ours:
    return Ours(
        case,
        sum(one.days for one in seen),
        tuple(one.falls_s for one in seen),
        sum(one.rounds for one in seen),
        tuple(delay for delay in new if not math.isnan(delay)),
        tuple(delay for delay in learned if not math.isnan(delay)),
    )


# --- theory -------------------------------------------------------------------------------


def bound_s(case: Case, config: HealthConfig, rtt_s: float = judge_ours.RTT_S) -> float:
    """The shortest possible median delay: see _BOUND."""
    every_s, in_a_burst_s = 1 / config.rounds_per_s, 0.05
    sampling_s = every_s / 2
    rounds = config.false_alarm_days * judge_ours.DAY_S / every_s  # between two false alarms
    if case.bursts:
        # A round meets a burst with this probability; the rest of the burst is then as long as a
        # whole one, since lengths are exponential.
        met = (BURST_S / every_s) * (1 - math.exp(-every_s / BURST_S))
        seen = config.false_alarm_days * judge_ours.DAY_S / BURST_EVERY_S * met
        return sampling_s + BURST_S * math.log(seen) + rtt_s
    if not case.ratio:
        return sampling_s + rtt_s
    starts = rounds * case.ratio * (1 - case.ratio)
    losses = 1 + max(0.0, math.log(starts) / -math.log(case.ratio))
    return sampling_s + rtt_s + max(0.0, losses - 2) * in_a_burst_s + rtt_s


# --- the report ---------------------------------------------------------------------------


def _policed_figures(seen: Sequence[judge_ours.Watched]) -> Iterable[Figure]:
    days = sum(one.days for one in seen)
    falls = sum(len(one.falls_s) for one in seen)
    yield Figure(f"{POLICED.name}: false alarms in {days:g} days", falls, target=0)


def _leap_figures(by_leap: Sequence[Sequence[judge_ours.Leap]]) -> Iterable[Figure]:
    for to_s, leaps in zip(LEAPS_S, by_leap, strict=True):
        of = f"round trip leaps to {to_s:g} s: "
        yield Figure(f"{of}false alarms, at most", max(one.falls for one in leaps), target=1)
        yield Figure(f"{of}down, longest", max(one.down_s for one in leaps), "s", LEAP_DOWN_S)
        dead = sum(not one.works for one in leaps)
        yield Figure(f"{of}neither up nor degraded in the end", dead, target=0)


def _report(
    ours: list[Ours],
    rtts: dict[float, list[float]],
    theirs: list[Theirs],
    beyond: Iterable[Figure],
) -> Report:
    figures = [
        Figure(
            f"{one.case.name}: false alarms in {one.days:g} days",
            one.falls,
            target=one.days / 30 * ALARMS_PER_30_DAYS,
        )
        for one in ours
    ]
    for rtt_s, delays in rtts.items():
        has_target = rtt_s <= 0.05
        of = f"delay at 1 % loss, round trip {rtt_s * 1000:g} ms: "
        figures += [
            Figure(f"{of}median", median(delays), "s", MEDIAN_S if has_target else None),
            Figure(f"{of}p95", quantile(delays, 0.95), "s", P95_S if has_target else None),
        ]
    figures += beyond
    config = HealthConfig()
    samples: dict[str, Any] = {
        "ours": [
            {
                "link": one.case.name,
                "falls_s": [[round(at, 3) for at in falls] for falls in one.falls_s],
                "new_s": _rounded(one.new_s),
                "learned_s": _rounded(one.learned_s),
            }
            for one in ours
        ],
        "round trips": {f"{rtt_s * 1000:g} ms": _rounded(delays) for rtt_s, delays in rtts.items()},
        "peers": [_peer_sample(one) for one in theirs],
    }
    return Report(
        "Failure detector",
        f"{_HOW}\n\n{_BOUND.format(days=config.false_alarm_days)}",
        tuple(figures),
        (
            _ours_table(ours, config),
            _peers_table("Peers with default settings", [t for t in theirs if t.rule in DEFAULTS]),
            _peers_table(
                "Peers at their fastest with no more false alarms than our target, set for each"
                " link",
                list(_best(theirs, lambda one: one.is_good)),
            ),
            _peers_table(
                f"Peers with one setting for all links, the most patient below {P95_S:g} s without"
                " loss",
                list(_most_patient(theirs)),
            ),
        ),
        samples,
        (
            "The peers' rules are taken from their source code; their processes don't run here.",
            "At their fastest dpinger and lsm send 10 probes a second; we send 2.",
        ),
    )


def _ours_table(ours: list[Ours], config: HealthConfig) -> Table:
    rows = []
    for one in ours:
        spread = [
            f"{quantile(delays, part):.2f} s"
            for delays in (one.new_s, one.learned_s)
            for part in (0.5, 0.95)
        ]
        probes = one.rounds / (one.days * judge_ours.DAY_S)
        least = f"{bound_s(one.case, config):.2f} s"
        rows.append((one.case.name, f"{one.per_30_days:.2g}", *spread, least, f"{probes:.2f}"))
    heads = ("link", "false alarms in 30 days", "new, median", "p95", "learned, median", "p95")
    return Table("Ours", (*heads, "bound, median", "probes per second"), tuple(rows))


def _peers_table(title: str, theirs: Sequence[Theirs]) -> Table:
    rows = []
    for one in theirs:
        delays_s, dead = one.delays_s, one.dead_share
        delays = (
            (f"{median(delays_s):.2f} s", f"{quantile(delays_s, 0.95):.2f} s")
            if delays_s
            else ("", "")
        )
        more = f"down {dead:.0%} of the time" if dead > 0.05 else ""
        alarms = (
            f"{one.alarms.per_30_days:,.2g}"
            if one.alarms.per_30_days < 100
            else (f"{one.alarms.per_30_days:,.0f}")
        )
        rows.append((one.case.name, one.rule.peer, one.rule.settings, alarms, *delays, more))
    heads = ("link", "", "settings", "false alarms in 30 days", "delay, median", "p95", "")
    return Table(title, heads, tuple(sorted(rows, key=lambda row: _link_number(row[0]))))


def _link_number(name: str) -> int:
    return [case.name for case in CASES].index(name)


def _best(theirs: list[Theirs], good: Callable[[Theirs], bool]) -> Iterable[Theirs]:
    """The fastest good setting of each peer on each link."""
    for case in CASES:
        for peer in dict.fromkeys(one.rule.peer for one in theirs):
            mine = [one for one in theirs if one.rule.peer == peer and one.case.name == case.name]
            if able := [one for one in mine if good(one) and one.delays_s]:
                yield min(able, key=lambda one: median(one.delays_s))


def _most_patient(theirs: list[Theirs]) -> Iterable[Theirs]:
    """Each peer's most patient setting below P95_S on a link without loss, otherwise its fastest;
    on all links."""
    for peer in dict.fromkeys(one.rule.peer for one in theirs):
        mine = [one for one in theirs if one.rule.peer == peer]
        clean = [one for one in mine if one.case == CLEAN]
        quick = [one for one in clean if quantile(one.delays_s, 0.95) <= P95_S]
        if quick:
            rule = max(quick, key=lambda one: median(one.delays_s)).rule
        else:
            rule = min(clean, key=lambda one: median(one.delays_s)).rule
        yield from (one for one in mine if one.rule == rule)


def _peer_sample(one: Theirs) -> dict[str, Any]:
    return {
        "link": one.case.name,
        "rule": f"{one.rule.peer}: {one.rule.settings}",
        "days": round(one.alarms.days, 3),
        "falls": one.alarms.falls,
        "delays_s": _rounded(one.delays_s),
        "dead": round(one.dead_share, 3),
    }


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 3) for value in values]

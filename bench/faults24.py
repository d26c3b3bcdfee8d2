"""`faults24`: days of random faults on three uplinks, in simulated time.

Rules: the true state is known at any time, and compared with the paths' states and the decision.
Each uplink has one fault at a time, and healthy times in between; times are exponential. An uplink
is dead while it has no carrier or drops everything; otherwise it is alive, however bad.
"""

from __future__ import annotations

import heapq
import math
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from bench.clock import log
from bench.results import Figure, Report, Table
from bench.stats import quantile
from ifdefault.health import Candidate, Path, decide
from ifdefault.health.failure_detector import LONGEST_S
from ifdefault.model.config import HealthConfig
from ifdefault.model.health import GATEWAY, Ask, Decision, PathState, Transition, Verdict

DAY_S = 86400.0
DAYS = 4  # each with faults of its own
NAMES = ("isp-a", "isp-b", "isp-c")
TARGETS = tuple(f"icmp://192.0.2.{n}" for n in range(1, 5))
HEALTHY_S = 600.0  # mean, between two faults
RTT_S, SLOW_RTT_S = 0.02, 0.25
CARRIER_S = 0.02  # until the kernel reports it
CARRIER_OFF, CARRIER_ON = -2, -1

# faults and their mean duration, equally often
FAULTS_S = {"black hole": 60.0, "carrier": 30.0, "loss": 300.0, "bursts": 300.0, "delay": 120.0}
FAULTS_S |= {"flapping": 60.0}
LOSS = 0.2
BURST_S, BURST_EVERY_S = 0.2, 20.0
FLAP_S = 6.0  # mean of each half

DETECTED_S = 1.2  # a death, on a link without bursts of loss before
DETECTED_LATE_S = LONGEST_S + 0.7  # on one with bursts
ANSWERS_S = 1.0
BACK_S = 5.0
IN_FLIGHT_S = 0.3  # an outcome so late may be of a probe that was sent before
_HOW = f"""\
Three uplinks for {DAYS} x 24 simulated hours. Each is healthy for {HEALTHY_S / 60:g} minutes on
average, then has one of these faults, equally often: a black hole ({FAULTS_S["black hole"]:g} s on
average), carrier lost ({FAULTS_S["carrier"]:g} s), {LOSS:.0%} loss ({FAULTS_S["loss"]:g} s), bursts
of total loss ({BURST_S * 1000:g} ms, one in {BURST_EVERY_S:g} s, for {FAULTS_S["bursts"]:g} s), a
round trip of {SLOW_RTT_S * 1000:g} ms instead of {RTT_S * 1000:g} ({FAULTS_S["delay"]:g} s), or
flapping between black hole and healthy ({FLAP_S:g} s each, for {FAULTS_S["flapping"]:g} s). All
times are exponential. The daemon's paths and decision run on these links. An uplink is *dead*
without carrier or in a black hole, and alive otherwise, also in bursts of loss. After bursts, or
deaths too short to be detected, the detector waits longer on that link for some hours, but never
for more than {LONGEST_S:g} s of silence."""


class Phase(NamedTuple):
    """An uplink's true state from `from_s` on."""

    from_s: float
    kind: str
    dead: bool


def phases(seed: str) -> Iterator[Phase]:
    """The phases of an uplink, without end."""
    rng = random.Random(seed)
    at_s = 0.0
    while True:
        yield Phase(at_s, "healthy", False)
        at_s += 30.0 + rng.expovariate(1 / HEALTHY_S)
        kind = rng.choice(list(FAULTS_S))
        end_s = at_s + rng.expovariate(1 / FAULTS_S[kind])
        if kind not in ("flapping", "bursts"):
            yield Phase(at_s, kind, kind in ("black hole", "carrier"))
        else:
            dead_s, alive_s = (FLAP_S, FLAP_S) if kind == "flapping" else (BURST_S, BURST_EVERY_S)
            while at_s < end_s:
                # a burst of loss is no death
                yield Phase(at_s, "burst" if kind == "bursts" else kind, kind == "flapping")
                at_s += rng.expovariate(1 / dead_s)
                yield Phase(at_s, kind, False)
                at_s += rng.expovariate(1 / alive_s)
        at_s = max(at_s, end_s)


class Uplink:
    """One path, its simulated link, and its true states."""

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self.path = Path(name, 4, TARGETS, HealthConfig(), 0.0)
        self.steps: list[Transition] = []
        self.truth: list[Phase] = []
        self._phases = phases(seed)
        self._random = random.Random(f"{seed} packets").random
        self._next = next(self._phases)
        # (when, probe number, outcome, round trip); a negative number is a change of the carrier
        self._events: list[tuple[float, int, Verdict, int]] = []
        self.enter_next_phase()

    @property
    def due_s(self) -> float:
        first_s = self._events[0][0] if self._events else math.inf
        return min(self._next.from_s, self.path.wake_s, first_s)

    def enter_next_phase(self) -> None:
        before, self.phase = self.truth[-1] if self.truth else self._next, self._next
        self.truth.append(self.phase)
        self._next = next(self._phases)
        reported_s = self.phase.from_s + CARRIER_S
        if self.phase.kind == "carrier":
            heapq.heappush(self._events, (reported_s, CARRIER_OFF, "lost", 0))
        elif before.kind == "carrier":
            heapq.heappush(self._events, (reported_s, CARRIER_ON, "answered", 0))

    def step(self, now: float) -> tuple[Transition, ...]:
        """Process what is due now."""
        steps: tuple[Transition, ...] = ()
        if now >= self._next.from_s:
            self.enter_next_phase()
        elif self._events and self._events[0][0] <= now:
            _, seq, verdict, rtt_us = heapq.heappop(self._events)
            if seq < 0:
                steps = self.path.link(now, verdict == "answered")
            else:
                steps = self.path.observe(now, seq, verdict, rtt_us)
        else:
            for ask in self.path.asks(now):
                self._send(now, ask)
            steps = self.path.tick(now)
        self.steps += steps
        return steps

    def _send(self, now: float, ask: Ask) -> None:
        kind = self.phase.kind
        beyond = ask.target != GATEWAY
        lost = kind == "carrier" or (beyond and (self.phase.dead or kind == "burst"))
        if lost or (kind == "loss" and self._random() < LOSS):
            heapq.heappush(self._events, (now + ask.timeout_s, ask.seq, "lost", 0))
            return
        rtt_s = SLOW_RTT_S if kind == "delay" and beyond else RTT_S
        rtt_s *= 1 + self._random() / 10
        if rtt_s > ask.timeout_s:
            heapq.heappush(self._events, (now + ask.timeout_s, ask.seq, "lost", 0))
        heapq.heappush(self._events, (now + rtt_s, ask.seq, "answered", int(rtt_s * 1e6)))


@dataclass(slots=True)
class Day:
    """The results of a day."""

    detected_s: list[float] = field(default_factory=list)  # deaths on links without bursts before
    detected_late_s: list[float] = field(default_factory=list)  # on links with bursts before
    undetected_s: list[float] = field(default_factory=list)  # how long other deaths lasted
    answers_s: list[float] = field(default_factory=list)  # from alive again to `recovering`
    first_back_s: list[float] = field(default_factory=list)  # from alive again to `up`, not damped
    fell_in_bursts: int = 0
    fell_alive: int = 0
    wrong_s: list[float] = field(default_factory=list)  # the default on a dead uplink, others alive
    deaths: int = 0
    transitions: int = 0
    moves: int = 0  # of the default


def run() -> Report:
    log(f"{DAYS} days of faults on {len(NAMES)} uplinks")
    with multiprocessing.get_context("forkserver").Pool() as pool:
        days = pool.map(live, range(DAYS))
    return _report(days)


def live(seed: int, seconds: float = DAY_S) -> Day:
    """One day."""
    day = Day()
    uplinks = [Uplink(name, f"{seed} {name}") for name in NAMES]
    decision = decide(_candidates(uplinks))
    wrong_from_s = math.nan  # since when the default names a dead uplink
    while True:
        uplink = min(uplinks, key=lambda one: one.due_s)
        now = uplink.due_s
        if now >= seconds:
            break
        steps = uplink.step(now)
        day.transitions += len(steps)
        if steps:
            before, decision = decision, decide(_candidates(uplinks))
            day.moves += before.ranking(4)[0] != decision.ranking(4)[0]
        wrong = _is_wrong(uplinks, decision)
        if wrong and math.isnan(wrong_from_s):
            wrong_from_s = now
        elif not wrong and not math.isnan(wrong_from_s):
            day.wrong_s.append(now - wrong_from_s)
            wrong_from_s = math.nan
    for uplink in uplinks:
        _compare(day, uplink)
    return day


def _candidates(uplinks: list[Uplink]) -> list[Candidate]:
    health = [uplink.path.health() for uplink in uplinks]
    return [Candidate(h.uplink, 4, state=h.state, down_since_s=h.since_s) for h in health]


def _is_wrong(uplinks: list[Uplink], decision: Decision) -> bool:
    """Whether the default goes to a dead uplink while another is alive and up."""
    first = decision.ranking(4)[0]
    dead = {one.name for one in uplinks if one.phase.dead}
    alive = any(
        not one.phase.dead and one.path.health().state in ("up", "degraded") for one in uplinks
    )
    return first in dead and alive


class Span(NamedTuple):
    """A time in which an uplink was dead, or alive, all along."""

    from_s: float
    to_s: float
    dead: bool
    bursts: tuple[tuple[float, float], ...]  # of loss, in it
    burst_before: bool


def _spans(truth: list[Phase]) -> Iterator[Span]:
    """Join phases of equal state; the unfinished last one is left out."""
    from_s, bursts, seen = 0.0, list[tuple[float, float]](), False
    for phase, after in pairwise(truth):
        if phase.kind == "burst":
            bursts.append((phase.from_s, after.from_s))
        if phase.dead != after.dead:
            yield Span(from_s, after.from_s, phase.dead, tuple(bursts), seen)
            # the loss model learns short deaths as bursts of loss
            short = phase.dead and after.from_s - from_s < DETECTED_S
            seen = seen or bool(bursts) or short
            from_s, bursts = after.from_s, []


def _compare(day: Day, uplink: Uplink) -> None:
    """Compare each death and each return with the path's states."""
    for span in _spans(uplink.truth):
        state: PathState = "unproven"
        inside = []
        for step in uplink.steps:
            if step.at_s < span.from_s:
                state = step.state
            elif step.at_s < span.to_s:
                inside.append(step)
        falls = [step.at_s for step in inside if step.state == "down"]
        if span.dead:
            day.deaths += 1
            if state not in ("up", "degraded"):
                continue  # it wasn't used anyway
            if falls:
                detected = day.detected_late_s if span.burst_before else day.detected_s
                detected.append(falls[0] - span.from_s)
            else:
                day.undetected_s.append(span.to_s - span.from_s)
            continue
        for at_s in falls:
            if at_s < span.from_s + IN_FLIGHT_S:
                continue  # losses of the death before
            burst = any(a <= at_s <= b + IN_FLIGHT_S for a, b in span.bursts)
            day.fell_in_bursts += burst
            day.fell_alive += not burst
        if state == "down" and inside:
            day.answers_s.append(inside[0].at_s - span.from_s)
            up = [step for step in inside[1:2] if step.state == "up"]
            if up and up[0].cause == f"answers for {HealthConfig().recover_s:g} s":
                day.first_back_s.append(up[0].at_s - span.from_s)


def _report(days: list[Day]) -> Report:
    def all_of(name: str) -> list[float]:
        return [value for day in days for value in getattr(day, name)]

    detected, late = all_of("detected_s"), all_of("detected_late_s")
    undetected, answers = all_of("undetected_s"), all_of("answers_s")
    back, wrong = all_of("first_back_s"), all_of("wrong_s")
    limits: list[tuple[str, list[float], float | None]] = [
        ("death detected, link without bursts before", detected, DETECTED_S),
        ("death detected, link with bursts before", late, DETECTED_LATE_S),
        ("death not detected", undetected, DETECTED_LATE_S),
        ("first answer after a return", answers, ANSWERS_S),
        ("up again, not damped", back, BACK_S),
        ("default on a dead uplink while another is up", wrong, DETECTED_LATE_S),
    ]
    figures = [
        *(Figure(f"{what}, longest", max(times), "s", limit) for what, times, limit in limits),
        Figure(
            "down in a burst of loss, times a day on all three",
            sum(d.fell_in_bursts for d in days) / DAYS,
        ),
        Figure("down while alive otherwise, times", sum(d.fell_alive for d in days), target=0),
    ]
    rows = [
        (what, str(len(times)), *(f"{quantile(times, part):.2f} s" for part in (0.5, 0.95, 1)))
        for what, times, _ in limits
    ]
    counts = (
        f"{sum(day.deaths for day in days)} deaths, {sum(day.transitions for day in days)}"
        f" transitions, {sum(day.moves for day in days)} moves of the default"
    )
    return Report(
        "Simulated days of faults",
        _HOW,
        tuple(figures),
        (Table(f"Durations ({counts})", ("", "times", "median", "p95", "longest"), tuple(rows)),),
        {what: [round(value, 3) for value in times] for what, times, _ in limits},
    )

"""`faults24`: a day of random faults on three uplinks, judged and decided, in simulated time.

Rules: the truth is known at every moment, and held against what the paths say and what the
decision names. Each uplink has one fault at a time, with health in between; times are exponential.
An uplink is dead while it has no carrier or swallows all; otherwise it is alive, however bad.
"""

from __future__ import annotations

import heapq
import math
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.clock import say
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from ifdefault.health import Candidate, Path, decide
from ifdefault.model import HealthConfig
from ifdefault.vitals import GATEWAY, Ask, Decision, Transition, Verdict

DAY_S = 86400.0
DAYS = 4  # each with faults of its own
NAMES = ("isp-a", "isp-b", "isp-c")
TARGETS = tuple(f"icmp://192.0.2.{n}" for n in range(1, 5))
HEALTHY_S = 600.0  # mean, between two faults
RTT_S, SLOW_RTT_S = 0.02, 0.25
CARRIER_S = 0.02  # until the kernel tells
CARRIER_OFF, CARRIER_ON = -2, -1

# what happens, and for how long on average; each as often as the others
FAULTS_S = {"black hole": 60.0, "carrier": 30.0, "loss": 300.0, "bursts": 300.0, "delay": 120.0}
FAULTS_S |= {"flapping": 60.0}
LOSS = 0.2
BURST_S, BURST_EVERY_S = 0.2, 20.0
FLAP_S = 6.0  # mean of each half

NOTICED_S = 1.2  # a death, on a line that hasn't shown bursts of loss lately
NOTICED_LATE_S = 4.0  # on one that has
BACK_S = 1.0  # after the hold
_HOW = f"""\
Three uplinks for {DAYS} x 24 simulated hours. Each is healthy for {HEALTHY_S / 60:g} minutes on
average, then one of these, equally often: a black hole ({FAULTS_S["black hole"]:g} s on average),
its carrier lost ({FAULTS_S["carrier"]:g} s), {LOSS:.0%} loss ({FAULTS_S["loss"]:g} s), bursts of
total loss ({BURST_S * 1000:g} ms, one in {BURST_EVERY_S:g} s, for {FAULTS_S["bursts"]:g} s), a
round trip of {SLOW_RTT_S * 1000:g} ms instead of {RTT_S * 1000:g} ({FAULTS_S["delay"]:g} s), or
flapping between black hole and life ({FLAP_S:g} s each, for {FAULTS_S["flapping"]:g} s); all times
are exponential. The daemon's own paths and decision run on it. *Noticed*: from death to `down`, of
deaths that lasted so long. *Back*: from life to `up`, beyond the hold that damping asks for."""


class Phase(NamedTuple):
    """What an uplink is like from `from_s` on."""

    from_s: float
    kind: str
    dead: bool


def phases(seed: str) -> Iterator[Phase]:
    """The life of an uplink, without end."""
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
                # A burst of loss is no death: it is to be borne.
                yield Phase(at_s, "burst" if kind == "bursts" else kind, kind == "flapping")
                at_s += rng.expovariate(1 / dead_s)
                yield Phase(at_s, kind, False)
                at_s += rng.expovariate(1 / alive_s)
        at_s = max(at_s, end_s)


class Uplink:
    """One path, its line, and the truth about it."""

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self.path = Path(name, 4, TARGETS, HealthConfig(), 0.0)
        self.steps: list[Transition] = []
        self.truth: list[Phase] = []
        self._phases = phases(seed)
        self._random = random.Random(f"{seed} packets").random
        self._next = next(self._phases)
        # (when, number of the probe, its fate, round trip), or a negative number: the carrier
        self._events: list[tuple[float, int, Verdict, int]] = []
        self.turn()

    @property
    def due_s(self) -> float:
        first_s = self._events[0][0] if self._events else math.inf
        return min(self._next.from_s, self.path.wake_s, first_s)

    def turn(self) -> None:
        """The next phase of its life."""
        was, self.phase = self.truth[-1] if self.truth else self._next, self._next
        self.truth.append(self.phase)
        self._next = next(self._phases)
        told_s = self.phase.from_s + CARRIER_S
        if self.phase.kind == "carrier":
            heapq.heappush(self._events, (told_s, CARRIER_OFF, "lost", 0))
        elif was.kind == "carrier":
            heapq.heappush(self._events, (told_s, CARRIER_ON, "answered", 0))

    def step(self, now: float) -> tuple[Transition, ...]:
        """What is due now."""
        found: tuple[Transition, ...] = ()
        if now >= self._next.from_s:
            self.turn()
        elif self._events and self._events[0][0] <= now:
            _, seq, verdict, rtt_us = heapq.heappop(self._events)
            if seq < 0:
                found = self.path.link(now, verdict == "answered")
            else:
                found = self.path.observe(now, seq, verdict, rtt_us)
        else:
            for ask in self.path.asks(now):
                self._send(now, ask)
            found = self.path.tick(now)
        self.steps += found
        return found

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
    """What came of a day."""

    noticed_s: list[float] = field(default_factory=list)  # from a clean life
    noticed_late_s: list[float] = field(default_factory=list)  # where bursts were seen before
    unnoticed: int = 0  # deaths that were over before
    back_s: list[float] = field(default_factory=list)
    wrong_s: list[float] = field(default_factory=list)  # the default on a dead uplink, others alive
    false_alarms: int = 0
    transitions: int = 0
    decisions: int = 0


def run() -> Report:
    say(f"{DAYS} days of faults on {len(NAMES)} uplinks")
    with multiprocessing.get_context("forkserver").Pool() as pool:
        days = pool.map(live, range(DAYS))
    return _report(days)


def live(seed: int, seconds: float = DAY_S) -> Day:
    """One day."""
    day = Day()
    uplinks = [Uplink(name, f"{seed} {name}") for name in NAMES]
    decision = decide(_candidates(uplinks), None)
    wrong_from_s = math.nan  # since when the default names a dead uplink
    while True:
        uplink = min(uplinks, key=lambda one: one.due_s)
        now = uplink.due_s
        if now >= seconds:
            break
        found = uplink.step(now)
        day.transitions += len(found)
        if found:
            before, decision = decision, decide(_candidates(uplinks), decision)
            day.decisions += before.ranking(4)[0] != decision.ranking(4)[0]
        wrong = _is_wrong(uplinks, decision)
        if wrong and math.isnan(wrong_from_s):
            wrong_from_s = now
        elif not wrong and not math.isnan(wrong_from_s):
            day.wrong_s.append(now - wrong_from_s)
            wrong_from_s = math.nan
    for uplink in uplinks:
        _hold_against_truth(day, uplink, seconds)
    return day


def _candidates(uplinks: list[Uplink]) -> list[Candidate]:
    return [Candidate(one.name, 4, state=one.path.health().state) for one in uplinks]


def _is_wrong(uplinks: list[Uplink], decision: Decision) -> bool:
    """The default goes to a dead uplink while one is up that lives."""
    first = decision.ranking(4)[0]
    dead = {one.name for one in uplinks if one.phase.dead}
    alive = any(
        not one.phase.dead and one.path.health().state in ("up", "degraded") for one in uplinks
    )
    return first in dead and alive


def _hold_against_truth(day: Day, uplink: Uplink, until_s: float) -> None:
    """Compare each death and each return to life with what the path said."""
    steps = [step for step in uplink.steps if step.state in ("down", "up") or step.was == "up"]
    bursts = False
    ends = [phase.from_s for phase in uplink.truth[1:]]
    for phase, end_s in zip(uplink.truth, ends, strict=False):
        bursts = bursts or phase.kind == "burst"
        inside = [step for step in steps if phase.from_s <= step.at_s < end_s]
        before = [step for step in steps if step.at_s < phase.from_s]
        state = before[-1].state if before else "unproven"
        falls = [step.at_s for step in inside if step.state == "down"]
        if phase.dead and state in ("up", "degraded"):
            if not falls:
                day.unnoticed += 1
            else:
                (day.noticed_late_s if bursts else day.noticed_s).append(falls[0] - phase.from_s)
        if not phase.dead:
            # What falls just after a return to life had died before, as far as could be seen.
            day.false_alarms += sum(at > phase.from_s + NOTICED_S for at in falls)


def _report(days: list[Day]) -> Report:
    raise NotImplementedError

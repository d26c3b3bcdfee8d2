"""A path (an uplink in one family) as a state machine: evidence in, transitions out.

Rules: TRANSITIONS holds every step there is. Three things bring a path down: rounds lost beyond
what the line normally loses, its carrier, and, only where no target beyond the gateway is
configured, the gateway. All else is suspicion: it asks sooner, and decides nothing. Local errors,
probes that weren't sent or of which nothing was heard, and times at which nobody called aren't
evidence. Nothing but what came from beyond brings a path up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ifdefault.health.degradation import Degradation
from ifdefault.health.failure_detector import FailureDetector
from ifdefault.health.loss_model import LossModel, threshold
from ifdefault.health.probe_schedule import OVERDUE_S, WAITING_S, Pace, ProbeSchedule, Sent
from ifdefault.health.states import TRANSITIONS, Memory
from ifdefault.health.target import ProbeTarget
from ifdefault.model.config import Family, HealthConfig
from ifdefault.model.health import GATEWAY, Ask, Health, PathState, Transition, Verdict

PROOF_S = 3.0  # with the carrier back, answers are looked for at the pace of a burst
FLAP_S = 600.0  # each further failure within that time doubles the hold
LONG_DOWN_S = 600.0
GAP_S = 1.0  # the caller was away


class Path:
    """One path. Call `asks` and `tick` at `wake_s`, which every input may have moved."""

    def __init__(
        self,
        uplink: str,
        family: Family,
        targets: Sequence[str],
        config: HealthConfig,
        now: float,
        memory: Memory | None = None,
        presumed: PathState = "unproven",
        has_gateway: bool = True,
    ) -> None:
        """`memory` is what an earlier process knew; without it `presumed` is the state to begin
        with, and unless it is "unproven", silence of the targets counts from the beginning."""
        kept = memory or Memory(presumed, now)
        seen = dict(kept.seen)
        known = memory is None and presumed != "unproven"
        beyond = [
            ProbeTarget(at, probe, known or probe in seen, seen.get(probe, 0.0))
            for at, probe in enumerate(targets)
        ]
        gateway = ProbeTarget(GATEWAY, "gateway") if has_gateway else None
        self.uplink, self.family = uplink, family
        self._config = config
        self._now = self._since_s = now
        self._schedule = ProbeSchedule(beyond, gateway, 1 / config.rounds_per_s, now)
        self._loss_model = LossModel(kept.losses)
        self._degradation = Degradation(config)
        highest = threshold(config.false_alarm_days, config.rounds_per_s)
        self._detector = FailureDetector(self._loss_model, highest)
        self._link, self._neighbour = True, True
        self._proof_s = -math.inf
        self._until_s = self._hold_s = 0.0
        # what was sent before may have waited, a second or more, for a dead gateway's MAC
        self._alive_s = -math.inf
        self._answers = self._losses = 0
        self._falls_s = tuple(at for at in kept.falls_s if now - FLAP_S < at <= now)
        self._state: PathState = kept.state
        self._cause = kept.cause
        if memory and kept.since_s <= now:  # else it is of an earlier boot
            self._since_s = kept.since_s
        if kept.state == "recovering":
            self._hold(now)
        if kept.state == "down" and not self._schedule.good:
            self._state = "unproven"  # it was down for its carrier, or has other targets now

    @property
    def state(self) -> PathState:
        return self._state

    @property
    def since_s(self) -> float:
        """When it came to be in its state."""
        return self._since_s

    # --- asking ---------------------------------------------------------------------------

    @property
    def wake_s(self) -> float:
        """When `asks` and `tick` must be called next, at the latest; infinite without carrier."""
        if not self._link:
            return math.inf
        also_s = self._until_s if self._state == "recovering" else math.inf
        return min(self._schedule.wake_s(), self._detector.deadline_s, also_s)

    def asks(self, now: float) -> tuple[Ask, ...]:
        """The probes to send now."""
        now = self._at(now)
        if now < self._look(now):
            return ()
        self._schedule.forget(now)
        self._detector.forget_stale(now)
        return tuple(self._schedule.asks(now, self._pace(now)))

    def tick(self, now: float) -> tuple[Transition, ...]:
        """Let time pass: a hold that ends, patience that ends."""
        now = self._at(now)
        self._look(now)
        if self._state == "recovering" and now >= self._until_s:
            return self._end_hold(now)
        return self._judge(now)

    def _pace(self, now: float) -> Pace:
        match self._state:
            case "down" if now < self._proof_s:
                return "burst"
            case "down":
                return "waiting" if now - self._since_s < LONG_DOWN_S else "waiting long"
            case "unproven":
                return "quiet"
        if self._detector.suspects(now):
            return "burst"
        return "waiting" if self._state == "recovering" else "quiet"

    # --- evidence: probes -----------------------------------------------------------------

    def observe(
        self, now: float, seq: int, verdict: Verdict, rtt_us: int = 0
    ) -> tuple[Transition, ...]:
        """A probe's fate. Some time after "lost" it may still come to be "answered"."""
        now = self._at(now)
        sent = self._schedule.take(seq)
        if sent is None or verdict == "local":
            return ()
        if verdict == "answered":
            return self._answered(now, sent, rtt_us / 1e6)
        if verdict == "lost":
            # Whoever tells it so late was held up: it may not have read an answer that came.
            if now > sent.at_s + sent.timeout_s + OVERDUE_S:
                return ()
            self._schedule.await_late(seq, sent)
        if sent.lost:
            return ()
        sent.target.wrong = verdict == "wrong"
        return self._lost(now, sent)

    def _answered(self, now: float, sent: Sent, rtt_s: float) -> tuple[Transition, ...]:
        target, schedule = sent.target, self._schedule
        was_good = target.good
        target.hear(sent.at_s)
        early = sent.at_s < self._alive_s
        if not early:
            schedule.time(target, rtt_s)
        if target.good != was_good:
            schedule.sort()
        if target not in schedule.judges:
            return ()
        self._detector.time(rtt_s, early=early)
        if sent.pace == "quiet" and not sent.lost:
            if not self._detector.run:
                self._loss_model.answered()
            self._degradation.count(0.0, rtt_s)
        if self._state == "recovering":
            self._answers += 1
        return self._alive(now, sent.at_s, sent.lost, f"{target.probe} answers")

    def _alive(self, now: float, at_s: float, late: bool, cause: str) -> tuple[Transition, ...]:
        """What was sent at `at_s` came through: what was lost until then counts no more."""
        detector = self._detector
        self._alive_s = min(self._alive_s, now)
        suspected = detector.suspects(now)
        detector.answer(now, at_s, late=late, teaches=self._state != "recovering")
        if suspected and not detector.suspects(now):
            self._schedule.calm()
        match self._state:
            case "unproven":
                return self._step(now, "up", cause)
            case "down" if self._link:
                self._hold(now)
                return self._step(now, "recovering", cause)
            case "up" | "degraded":
                return self._grade(now)
        return ()

    def _lost(self, now: float, sent: Sent) -> tuple[Transition, ...]:
        target, schedule, detector = sent.target, self._schedule, self._detector
        if sent.pace is None:  # no round: it means nothing, but for the gateway a closer look
            target.miss(sent.at_s, math.inf)
            if target is schedule.gateway and target.proven and target.row == 2:
                self.suspect(now, "the gateway is silent")
            return ()
        target.miss(sent.at_s, detector.clear_s)
        if len(schedule.good) > 1 and target.good and target.is_odd(self._degradation.loss_ratio):
            schedule.set_aside(target, now)
        if self._state in ("down", "unproven"):
            return ()
        if self._state == "recovering":
            self._losses += 1
        elif sent.pace == "quiet":
            self._degradation.count(1.0, 0.0)
        if sent.at_s <= detector.clear_s:  # one that was sent later has been answered
            if self._state != "recovering":
                self._loss_model.ended(now, 1)
            return self._grade(now)
        detector.lose(sent.at_s)
        if len(detector.run) == 1:
            schedule.hurry(now)
        return self._judge(now)

    def _judge(self, now: float) -> tuple[Transition, ...]:
        if now < self._detector.deadline_s:
            return ()
        first_s, rounds = self._detector.run[0], len(self._detector.run)
        cause = f"{rounds} rounds lost in {(now - first_s) * 1000:.0f} ms"
        gateway = self._schedule.gateway
        if gateway and self._schedule.beyond:
            if gateway.heard_s >= first_s:
                cause += ", the gateway answers"
            elif gateway.proven and gateway.lost_s >= first_s:
                cause += ", the gateway is silent too"
        return self._fall(now, cause)

    def _grade(self, now: float) -> tuple[Transition, ...]:
        """Up or degraded, by loss and delay."""
        worse = self._degradation.worse
        if self._state == "up" and worse:
            return self._step(now, "degraded", worse)
        if self._state == "degraded" and not worse:
            return self._step(now, "up", f"loss {self._degradation.loss_ratio:.0%}")
        return ()

    # --- evidence: all else ---------------------------------------------------------------

    def link(self, now: float, up: bool, cause: str = "carrier lost") -> tuple[Transition, ...]:
        """Carrier, and whether the interface can be used at all; `cause` if it can't."""
        now = self._at(now)
        if up == self._link:
            return ()
        self._link = up
        self._schedule.drop_all(now)
        if not up:
            return self._fall(now, cause)
        self._proof_s = now + PROOF_S
        return () if self._schedule.good else self._step(now, "unproven", "carrier is back")

    def neighbour(self, now: float, reachable: bool) -> tuple[Transition, ...]:
        """The gateway's ARP or neighbour discovery, succeeded or failed."""
        now = self._at(now)
        self._neighbour = reachable
        if self._schedule.beyond:
            if not reachable:
                self.suspect(now, "the gateway is unreachable")
            return ()
        if not reachable:
            return self._fall(now, "gateway unreachable")
        return self._alive(now, now, late=False, cause="the gateway is reachable")

    def suspect(self, now: float, cause: str) -> None:
        """Something looks wrong: probe in a burst until an answer clears it."""
        now = self._at(now)
        judged = self._schedule.good and self._state not in ("down", "unproven")
        if judged and self._detector.suspect(now, cause):
            self._schedule.hurry(now)

    def confirm(self, now: float, at_s: float | None = None) -> tuple[Transition, ...]:
        """The path carried traffic both ways (ACK progress) at `at_s`, or now. Who looks from time
        to time and finds progress knows it only for the time of the look before."""
        now = self._at(now)
        at_s = now if at_s is None else min(at_s, now)
        if not self._link or (self._state == "down" and at_s <= self._since_s):
            return ()
        found = self._alive(now, at_s, late=False, cause="traffic flows")
        if self._pace(now) == "quiet":
            self._schedule.spare(now, at_s)
        return found

    def _at(self, now: float) -> float:
        """Time never goes back."""
        if now > self._now:
            self._now = now
        return self._now

    def _look(self, now: float) -> float:
        """When something is due. If that was long ago, the machine slept, or was busy: what was
        lost meanwhile says nothing of the line."""
        wake_s = self.wake_s
        if now <= wake_s + GAP_S:
            return wake_s
        self._schedule.drop_all(now)
        self._detector.reset()
        if self._state == "recovering":
            self._hold(now)
        return now

    # --- states ---------------------------------------------------------------------------

    def _step(self, now: float, state: PathState, cause: str) -> tuple[Transition, ...]:
        was = self._state
        assert state in TRANSITIONS[was], f"{was} -> {state}"
        self._state, self._since_s, self._cause = state, now, cause
        return (Transition(now, self.uplink, self.family, was, state, cause),)

    def _fall(self, now: float, cause: str) -> tuple[Transition, ...]:
        self._detector.reset()
        if self._state == "down":
            return ()
        self._schedule.clear_targets()
        self._alive_s = math.inf
        self._falls_s = (*(at for at in self._falls_s if now - at < FLAP_S), now)
        return self._step(now, "down", cause)

    def _hold(self, now: float) -> None:
        """Begin to hold: longer for a path that failed several times lately."""
        config, falls = self._config, sum(now - at < FLAP_S for at in self._falls_s)
        damped_s = min(config.recover_s * 2.0 ** min(max(0, falls - 1), 30), config.damp_s)
        self._hold_s = max(config.recover_s, damped_s, WAITING_S)
        self._until_s = now + self._hold_s
        self._answers = self._losses = 0

    def _end_hold(self, now: float) -> tuple[Transition, ...]:
        proven = self._answers or not self._schedule.good
        if proven and self._answers >= self._losses:
            self._degradation.reset()
            return self._step(now, "up", f"answers for {self._hold_s:g} s")
        self._hold(now)
        return ()

    # --- told -----------------------------------------------------------------------------

    def health(self) -> Health:
        schedule, now = self._schedule, self._now
        heard = [target.rtt_s for target in schedule.good if target.rtt_s]
        return Health(
            uplink=self.uplink,
            family=self.family,
            state=self._state,
            since_s=self._since_s,
            cause=self._cause,
            loss_ratio=1.0 if self._state == "down" else self._degradation.loss_ratio,
            rtt_ms=sum(heard) / len(heard) * 1000 if heard else 0.0,
            gateway=self._gateway_health(),
            bursting=self._link and self._pace(now) == "burst",
            until_s=self._until_s if self._state == "recovering" else 0.0,
            targets=tuple(target.health(now) for target in schedule.beyond),
        )

    def _gateway_health(self) -> Literal["answers", "silent", "unknown"]:
        gateway = self._schedule.gateway
        if gateway is None:
            return "unknown"
        if not self._neighbour or (gateway.proven and gateway.row >= 2):
            return "silent"
        return "answers" if gateway.proven else "unknown"

    def memory(self) -> Memory:
        return Memory(
            self._state,
            self._since_s,
            self._cause,
            self._loss_model.learned(),
            tuple(
                (target.probe, target.rtt_s) for target in self._schedule.judges if target.proven
            ),
            self._falls_s,
        )

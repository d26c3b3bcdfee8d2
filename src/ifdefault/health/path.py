"""The state machine of a path (an uplink in one family): evidence in, transitions out.

Rules: TRANSITIONS lists all transitions. Three things bring a path down: more lost rounds than its
usual loss, loss of the carrier, and, only if no target beyond the gateway is configured, the
gateway. Anything else makes the path suspect: it is probed sooner, and nothing is decided. Local
errors, probes that weren't sent or have no outcome, and times without calls aren't evidence. Only
packets from beyond the gateway bring a path up. While connections progress although probes are
silent, it is degraded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ifdefault.health.contradiction import SERVED, Contradiction
from ifdefault.health.counts import PathCounts
from ifdefault.health.degradation import Degradation
from ifdefault.health.failure_detector import FailureDetector
from ifdefault.health.flap_damping import FlapDamping
from ifdefault.health.loss_model import LossModel, threshold
from ifdefault.health.pace import Pace, pace_of
from ifdefault.health.probe_schedule import OVERDUE_S, ProbeSchedule, Sent
from ifdefault.health.states import TRANSITIONS, Memory
from ifdefault.health.target import ProbeTarget
from ifdefault.model.config import Family, HealthConfig
from ifdefault.model.health import GATEWAY, Ask, Health, PathState, Transition, Verdict

CARRIER_BURST_S = 3.0  # how long to probe in a burst after the carrier is back
_BACK = "no answers since the link is back"
GAP_S = 1.0  # a later call means that the process or machine was suspended


class Path:
    """One path. Call `asks` and `tick` at `wake_s`, which changes with every input."""

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
        counts: PathCounts | None = None,
    ) -> None:
        """`memory` is the saved state of an earlier process. Without it, `presumed` is the initial
        state; unless that is "unproven", the silence of targets counts from the beginning."""
        saved = memory or Memory(presumed, now)
        seen, proven = dict(saved.seen), memory is None and presumed != "unproven"
        beyond = [
            ProbeTarget(index, probe, proven or probe in seen, seen.get(probe, 0.0))
            for index, probe in enumerate(targets)
        ]
        gateway = ProbeTarget(GATEWAY, "gateway") if has_gateway else None
        self.uplink, self.family = uplink, family
        self._now = self._since_s = now
        self._schedule = ProbeSchedule(beyond, gateway, 1 / config.rounds_per_s, now)
        self._schedule.counts = self.counts = counts or PathCounts()
        self._loss_model = LossModel(saved.losses)
        self._degradation = Degradation(config)
        highest = threshold(config.false_alarm_days, config.rounds_per_s)
        self._detector = FailureDetector(self._loss_model, highest)
        self._link, self._neighbour = True, True
        # probes sent before `_works_s` may have been queued for seconds for a silent gateway's MAC
        self._carrier_burst_s = self._works_s = -math.inf
        self._until_s = self._hold_s = 0.0
        self._contradiction, self._answers, self._losses = Contradiction(), 0, 0
        self._damping = FlapDamping(config, (at for at in saved.falls_s if at <= now))
        self._fell_from: PathState = "up"
        self._state, self._cause = saved.state, saved.cause
        if memory and saved.since_s <= now:  # otherwise it is from an earlier boot
            self._since_s = saved.since_s
        if saved.state == "recovering":
            self._start_hold(now)
        if saved.state == "down" and not self._schedule.good:
            self._state = "unproven"  # down by its carrier, or with other targets

    @property
    def state(self) -> PathState:
        return self._state

    @property
    def since_s(self) -> float:
        """When it entered its state."""
        return self._since_s

    # --- probes to send -------------------------------------------------------------------

    @property
    def wake_s(self) -> float:
        """When `asks` and `tick` must be called next, at the latest; inf without carrier."""
        if not self._link:
            return math.inf
        hold_s = self._until_s if self._state == "recovering" else math.inf
        return min(self._schedule.wake_s(), self._deadline_s, hold_s)

    def asks(self, now: float) -> tuple[Ask, ...]:
        """The probes to send now."""
        now = self._monotonic(now)
        if now < self._check_gap(now):
            return ()
        self._schedule.drop_expired(now)
        self._schedule.paced = self._loss_model.lossy
        self._detector.drop_stale(now)
        return tuple(self._schedule.asks(now, self._pace(now)))

    def tick(self, now: float) -> tuple[Transition, ...]:
        """Handle what is due at `now`: the end of a hold, the deadline of the detector."""
        now = self._monotonic(now)
        self._check_gap(now)
        if self._state == "recovering" and now >= self._until_s:
            return self._end_hold(now)
        return self._check_detector(now)

    def _pace(self, now: float) -> Pace:
        state, contradicted = self._state, self._contradiction.active
        if state == "down":
            burst = now < self._carrier_burst_s
        else:
            burst = state != "unproven" and not contradicted and self._detector.suspects(now)
        since_s, idle = now - self._since_s, self._schedule.idle
        return pace_of(state, since_s, burst=burst, idle=idle, contradicted=contradicted)

    # --- evidence: probes -----------------------------------------------------------------

    def observe(
        self, now: float, seq: int, verdict: Verdict, rtt_us: int = 0
    ) -> tuple[Transition, ...]:
        """The outcome of a probe. After "lost" it may still be "answered" for some time."""
        now = self._monotonic(now)
        sent = self._schedule.pop(seq)
        if sent is None or verdict == "local":
            return ()
        if verdict == "answered":
            return self._answered(now, sent, rtt_us / 1e6)
        if verdict == "lost":
            # the reporter was delayed: it may not have read an answer that arrived
            if now > sent.at_s + sent.timeout_s + OVERDUE_S:
                return ()
            self._schedule.await_late(seq, sent)
        if sent.lost:
            return ()
        self._schedule.record_wrong(sent, wrong=verdict == "wrong")
        return self._lost(now, sent)

    def _answered(self, now: float, sent: Sent, rtt_s: float) -> tuple[Transition, ...]:
        target, schedule = sent.target, self._schedule
        was_good = target.good
        target.record_answer(sent.at_s)
        early = sent.at_s < self._works_s
        schedule.record_rtt(sent, rtt_s, early=early)
        if target.good != was_good:
            schedule.update_good()
        if target not in schedule.deciding:
            return ()
        self._contradiction.end()
        self._detector.floor_s = schedule.floor_s
        if not early:
            self._detector.record_rtt(rtt_s)
            self._learn_answer(sent, rtt_s)
        if self._state == "recovering":
            self._answers += 1
        return self._confirmed(now, sent.at_s, sent.lost, f"{target.probe} answers")

    def _learn_answer(self, sent: Sent, rtt_s: float) -> None:
        """Rounds of bursts teach nothing, as they follow a loss."""
        if sent.pace in ("quiet", "sparse", "waiting") and not sent.lost and not self._detector.run:
            self._loss_model.record_answers()
        if sent.pace in ("quiet", "sparse"):
            if sent.lost:
                self._degradation.forget_loss()
            self._degradation.record(0.0, rtt_s)

    def _confirmed(self, now: float, at_s: float, late: bool, cause: str) -> tuple[Transition, ...]:
        """The path worked at `at_s`, so losses up to then no longer count."""
        detector = self._detector
        self._works_s = min(self._works_s, now)
        suspected = detector.suspects(now)
        detector.record_answer(now, at_s, late=late)
        if suspected and not detector.suspects(now):
            self._schedule.end_burst()
        match self._state:
            case "unproven":
                return self._transition(now, "up", cause)
            case "down" if self._link and self._is_new(at_s):
                # what was sent before the path was called down was late: it has worked since then
                self._start_hold(now if at_s > self._since_s else at_s)
                return self._transition(now, "recovering", cause)
            case "up" | "degraded":
                return self._check_degradation(now)
        return ()

    def _lost(self, now: float, sent: Sent) -> tuple[Transition, ...]:
        target, schedule, detector = sent.target, self._schedule, self._detector
        if sent.pace is None:  # in the background: only the gateway's silence makes it suspect
            target.record_loss(sent.at_s, math.inf)
            if target is schedule.gateway and target.proven and target.losses_in_row == 2:
                self.suspect(now, "the gateway is silent")
            return ()
        target.record_loss(sent.at_s, detector.clear_s)
        if (
            len(schedule.good) > 1
            and target.good
            and target.is_silent_alone(self._degradation.loss_ratio)
        ):
            schedule.set_aside(target, now)
        if self._state in ("down", "unproven"):
            return ()
        if self._state == "recovering":
            self._losses += 1
        elif sent.pace in ("quiet", "sparse"):
            self._degradation.record(1.0, 0.0)
        if sent.at_s <= detector.clear_s:  # a later probe was answered
            if sent.at_s >= self._works_s:  # otherwise it was lost while the path was down
                self._loss_model.record_run(now, 1)
            return self._check_degradation(now)
        self._contradiction.silent += 1
        detector.record_loss(sent.at_s)
        if len(detector.run) == 1 and not self._contradiction.active:
            schedule.start_burst(now)
        return self._check_detector(now)

    @property
    def _deadline_s(self) -> float:
        """When the path is down unless an answer comes."""
        return max(self._detector.deadline_s, self._contradiction.deadline_s)

    def _check_detector(self, now: float) -> tuple[Transition, ...]:
        if now < self._deadline_s:
            return ()
        first_s, rounds = self._detector.run[0], len(self._detector.run)
        lost = f"{rounds} rounds lost in {(now - first_s) * 1000:.0f} ms"
        self.counts.record_decision(now - first_s)
        return self._go_down(now, lost + self._schedule.gateway_since(first_s))

    def _check_degradation(self, now: float) -> tuple[Transition, ...]:
        """Change between up and degraded, by loss and delay."""
        degraded = SERVED if self._contradiction.active else self._degradation.cause
        if self._state == "up" and degraded:
            return self._transition(now, "degraded", degraded)
        if self._state == "degraded" and not degraded:
            return self._transition(now, "up", f"loss {self._degradation.loss_ratio:.0%}")
        return ()

    # --- other evidence -------------------------------------------------------------------

    def link(self, now: float, up: bool, cause: str = "carrier lost") -> tuple[Transition, ...]:
        """The carrier came up or down, or the interface became unusable for `cause`."""
        now = self._monotonic(now)
        was_up, self._link = self._link, up
        if self._state == "down" and not up:
            self._cause = cause  # the reason may be another than that of the transition
        if was_up == up:
            return ()
        self._schedule.drop_all(now)
        if not up:
            return self._go_down(now, cause)
        self._carrier_burst_s = now + CARRIER_BURST_S
        if not self._schedule.good:
            return self._transition(now, "unproven", "carrier is back")
        self._cause = _BACK
        return ()

    def neighbour(self, now: float, reachable: bool) -> tuple[Transition, ...]:
        """ARP or neighbour discovery of the gateway succeeded or failed."""
        now = self._monotonic(now)
        self._neighbour = reachable
        if self._schedule.beyond:
            if not reachable:
                self.suspect(now, "the gateway is unreachable")
            return ()
        if not reachable:
            return self._go_down(now, "gateway unreachable")
        return self._confirmed(now, now, late=False, cause="the gateway is reachable")

    def suspect(self, now: float, cause: str) -> None:
        """Make the path suspect: probe in a burst until an answer clears it."""
        now = self._monotonic(now)
        probed = self._schedule.good and self._state not in ("down", "unproven")
        if probed and self._detector.suspect(now, cause):
            self._schedule.start_burst(now)

    def stand_by(self, now: float, *, idle: bool) -> None:
        """Probe sparsely while nothing uses the path; once something does, verify it at once."""
        if self._schedule.stand_by(now, idle=idle):
            self.suspect(now, "it was idle")

    def confirm(self, now: float, at_s: float | None = None) -> tuple[Transition, ...]:
        """The path carried traffic in both directions (ACK progress) at `at_s`, or now. A poller
        that observes progress must pass the time of the ACK, or of its previous poll."""
        now = self._monotonic(now)
        at_s = now if at_s is None else min(at_s, now)
        if not self._link or (self._state == "down" and at_s <= self._since_s):
            return ()
        if good := self._schedule.good:
            answered_s = max(target.answered_s for target in good)
            self._contradiction.record_progress(at_s, answered_s, down=self._state == "down")
        transitions = self._confirmed(now, at_s, late=False, cause="traffic flows")
        if self._pace(now) == "quiet":
            self._schedule.skip_round(now, at_s)
        return transitions

    def _monotonic(self, now: float) -> float:
        """`now`, but never earlier than in a previous call."""
        if now > self._now:
            self._now = now
        return self._now

    def _check_gap(self, now: float) -> float:
        """When the next action is due. If that was long ago, the machine was suspended or busy:
        discard the losses meanwhile, which aren't evidence."""
        wake_s = self.wake_s
        if now <= wake_s + GAP_S:
            return wake_s
        self._schedule.drop_all(now)
        self._detector.reset()
        if self._state == "recovering":
            self._start_hold(now)
        return now

    # --- states ---------------------------------------------------------------------------

    def _transition(self, now: float, state: PathState, cause: str) -> tuple[Transition, ...]:
        was = self._state
        assert state in TRANSITIONS[was], f"{was} -> {state}"
        self._state, self._since_s, self._cause = state, now, cause
        self.counts.entered[state] += 1
        return (Transition(now, self.uplink, self.family, was, state, cause),)

    def _go_down(self, now: float, cause: str) -> tuple[Transition, ...]:
        self._detector.reset()
        if self._state == "down":
            return ()
        self._schedule.clear_targets()
        self._works_s = math.inf
        self._contradiction.end()
        self._fell_from = self._state
        if self._state == "recovering":
            self._damping.record_end(now)
        self._damping.record_fall(now)
        return self._transition(now, "down", cause)

    def _is_new(self, at_s: float) -> bool:
        """Whether the path, which is down, worked at a time that shows that it recovers. A path
        that failed while it recovered must answer to what was sent since."""
        return at_s > self._since_s or self._fell_from != "recovering"

    def _start_hold(self, now: float) -> None:
        self._hold_s = self._damping.hold_s
        self._until_s = now + self._hold_s
        self._answers = self._losses = 0

    def _end_hold(self, now: float) -> tuple[Transition, ...]:
        proven, served = self._answers or not self._schedule.good, self._contradiction.active
        if not served and (not proven or self._answers < self._losses):
            self._start_hold(now)
            return ()
        self._damping.record_end(now)
        self._degradation.reset()
        if served:
            return self._transition(now, "degraded", SERVED)
        return self._transition(now, "up", f"answers for {self._hold_s:g} s")

    # --- output ---------------------------------------------------------------------------

    def health(self) -> Health:
        schedule, now = self._schedule, self._now
        silent = self._state == "down" or self._contradiction.active
        return Health(
            uplink=self.uplink,
            family=self.family,
            state=self._state,
            since_s=self._since_s,
            cause=SERVED if self._contradiction.active else self._cause,
            loss_ratio=1.0 if silent else self._degradation.loss_ratio,
            rtt_ms=schedule.rtt_s() * 1000,
            gateway=schedule.gateway_health(self._neighbour),
            bursting=self._link and self._pace(now) == "burst",
            until_s=self._until_s if self._state == "recovering" else 0.0,
            targets=tuple(target.health(now) for target in schedule.beyond),
        )

    @property
    def gateway_is_silent(self) -> bool:
        """Whether there is reason to believe that the gateway itself failed."""
        return self._schedule.gateway_is_silent(self._neighbour, is_down=self._state == "down")

    def memory(self) -> Memory:
        return Memory(
            self._state,
            self._since_s,
            self._cause if self._link else _BACK,  # unless the next process finds it lost
            self._loss_model.learned(),
            self._schedule.seen(),
            self._damping.falls_s,
        )

"""The probe schedule of a path: rounds at the current pace, and background probes of the gateway
and of targets whose silence doesn't count.

Rules: a round probes one target, the good one that was probed longest ago; an idle path's rounds
ping, if a target can be pinged, and nothing is probed in the background. No target is probed more
often than its `spacing_s`, whatever the pace. Rounds that were missed are skipped, not caught up. A
burst of a lossy path (`paced`) is of BURST_ROUNDS, then of BURST_RATE a second: providers that
police pings let as many through, and what they drop beyond would look like a failure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

from ifdefault.health.counts import PathCounts
from ifdefault.health.pace import SPARSE_S, Pace
from ifdefault.health.target import ALONE_SPACING_S, ProbeTarget
from ifdefault.model.health import Ask

BURST_S = 0.05
BURST_ROUNDS = 5
BURST_RATE = 5.0  # a second, after them
WAITING_S = 0.25
WAITING_LONG_S = 0.5
FIRST_BACKGROUND_S = 2.0  # for targets that never answered, at first
BACKGROUND_S = 10.0
PATIENT_ASKS = 10
GATEWAY_S: dict[Pace, float] = {
    "quiet": 5.0,
    "sparse": math.inf,
    "burst": 0.2,
    "waiting": 1.0,
    "waiting long": 1.0,
}
GATEWAY_MUTE_S = 60.0  # for a gateway that never answers
SLACK = 0.2  # in units of the quiet interval
EXCESS_FADE = 0.98  # decay of `excess_s` per answer
RECENT = 4  # answers that `floor_s` is of
LATE_S = 3.0  # how long after its timeout an answer is still accepted
OVERDUE_S = 1.0  # after its timeout: an outcome reported later doesn't count as a loss


class Sent(NamedTuple):
    at_s: float
    target: ProbeTarget
    pace: Pace | None  # None: a background probe, whose loss doesn't count
    timeout_s: float
    lost: bool = False


_last = attrgetter("last_s")


class ProbeSchedule:
    """The schedule of one path. `beyond` are its targets beyond the gateway; `deciding` those whose
    silence may bring it down: the same, or the gateway if there are none."""

    def __init__(
        self, beyond: Sequence[ProbeTarget], gateway: ProbeTarget | None, quiet_s: float, now: float
    ):
        self.beyond = tuple(beyond)
        self.gateway = gateway
        self.deciding = self.beyond or ((gateway,) if gateway else ())
        if gateway and not beyond:
            gateway.spacing_s = ALONE_SPACING_S
        self.counts = PathCounts()
        self.paced = self.idle = False
        self.excess_s = 0.0  # by how much recent answers were late
        self.floor_s = 0.0  # the fastest of the RECENT answers; 0: not so many yet
        self._recent_s: tuple[float, ...] = ()
        self._credit, self._credit_s = 0.0, now  # rounds that a paced burst may have at once
        self.round_s = now
        self._quiet_s = quiet_s
        self._gateway_s = self._background_s = now
        self._slack_s = 0.0
        self._seq = 0
        self._sent: dict[int, Sent] = {}
        self._good: list[ProbeTarget] = []
        self.update_good()

    @property
    def good(self) -> Sequence[ProbeTarget]:
        return self._good

    def update_good(self) -> None:
        """Update the list of good targets, after one of them changed."""
        self._good = [target for target in self.deciding if target.good]
        others = [target.due_s for target in self.deciding if not target.good]
        self._background_s = min(others, default=math.inf)

    def seen(self) -> tuple[tuple[str, float], ...]:
        """The targets that have answered, with their round-trip times."""
        return tuple((target.probe, target.rtt_s) for target in self.deciding if target.proven)

    def rtt_s(self) -> float:
        """The mean round-trip time of the good targets, 0 if unknown."""
        known = [target.rtt_s for target in self.good if target.rtt_s]
        return sum(known) / len(known) if known else 0.0

    def gateway_health(self, reachable: bool) -> Literal["answers", "silent", "unknown"]:
        """`reachable`: by ARP or neighbour discovery."""
        gateway = self.gateway
        if gateway is None:
            return "unknown"
        if not reachable or (gateway.proven and gateway.losses_in_row >= 2):
            return "silent"
        return "answers" if gateway.proven else "unknown"

    def gateway_is_silent(self, reachable: bool, *, is_down: bool) -> bool:
        """Whether it may have failed: it doesn't answer, or it never has and the path is down."""
        if self.gateway is None:
            return False
        health = self.gateway_health(reachable)
        return health == "silent" or (health == "unknown" and is_down)

    def gateway_since(self, at_s: float) -> str:
        """What it did since this time, as the end of a cause."""
        gateway = self.gateway
        if gateway and self.beyond:
            if gateway.answered_s >= at_s:
                return ", the gateway answers"
            if gateway.proven and gateway.lost_s >= at_s:
                return ", the gateway is silent too"
        return ""

    def wake_s(self) -> float:
        gateway_s = self._gateway_s if self.gateway and self.beyond else math.inf
        return min(self.round_s, self._background_s, gateway_s)

    def asks(self, now: float, pace: Pace) -> list[Ask]:
        """The probes that are due."""
        probes: list[Ask] = []
        if now >= self.round_s:
            self._ask_round(probes, now, pace)
        if pace == "sparse":
            self._background_s = self._gateway_s = math.inf
        if now >= self._background_s:
            self._ask_background(probes, now)
        if self.gateway and self.beyond and now >= self._gateway_s:
            self._ask_gateway(probes, self.gateway, now, pace)
        return probes

    def start_burst(self, now: float) -> None:
        """Start a burst: the next round at once, and probe all other targets, too."""
        self._slack_s = 0.0
        if self._good:
            oldest = min(self._good, key=_last)
            free_s = max(self._credit_s + self._wait_s(), oldest.last_s + oldest.spacing_s)
            self.round_s = min(self.round_s, max(now, free_s))
        for target in self.deciding:
            if not target.good:
                target.due_s = max(now, target.last_s + target.spacing_s)
                self._background_s = min(self._background_s, target.due_s)
        gateway = self.gateway
        if gateway and (gateway.proven or not gateway.lost):
            self._gateway_s = min(self._gateway_s, max(now, gateway.last_s + gateway.spacing_s))

    def stand_by(self, now: float, *, idle: bool) -> bool:
        """Whether the path is idle. True if it was until now: everything is probed at once."""
        resumes, self.idle = self.idle and not idle, idle
        if resumes:
            self.round_s = self._gateway_s = now
            self.update_good()
        return resumes

    def end_burst(self) -> None:
        """End a burst: return to the quiet pace."""
        last_s = max((target.last_s for target in self._good), default=self.round_s)
        self.round_s = max(self.round_s, last_s + self._quiet_s)

    def set_aside(self, target: ProbeTarget, now: float) -> None:
        """Ignore the silence of a target from now on; it is still probed in the background."""
        target.aside = True
        target.due_s = now
        self.update_good()

    def clear_targets(self) -> None:
        """The path went down, which explains the losses of its targets."""
        for target in self.deciding:
            target.aside, target.losses_in_row = False, 0
        self.update_good()

    def skip_round(self, now: float, at_s: float) -> None:
        """The path carried traffic at `at_s`: skip a quiet round, but never two in a row. The next
        one is delayed a little, as more traffic may be observed by then."""
        self._slack_s = self._quiet_s * SLACK
        last_s = max((target.last_s for target in self._good), default=now)
        self.round_s = max(self.round_s, min(at_s + self._quiet_s, last_s + 2 * self._quiet_s))

    def record_rtt(self, sent: Sent, rtt_s: float, *, early: bool) -> None:
        """The answer to a probe took `rtt_s`, also if that was longer than its timeout. `early`:
        the probe was sent while the path was down, and may have been queued until it recovered."""
        target = sent.target
        if sent.pace:
            self.counts.record_answer(rtt_s)
        if target in self.deciding:
            self._recent_s = (*self._recent_s[1 - RECENT :], rtt_s)
            self.floor_s = min(self._recent_s) if len(self._recent_s) == RECENT else 0.0
        if not early:
            self.excess_s = max(self.excess_s * EXCESS_FADE, 1.25 * target.record_rtt(rtt_s))

    def pop(self, seq: int) -> Sent | None:
        """Remove and return the probe with this number; None if it is unknown."""
        return self._sent.pop(seq, None)

    def record_wrong(self, sent: Sent, *, wrong: bool) -> None:
        """The probe was lost, or its answer is wrong: it won't have another."""
        sent.target.wrong = wrong
        self.counts.lost += wrong and sent.pace is not None

    def _forget(self, sent: Sent) -> None:
        """No answer to this probe is accepted any more."""
        self.counts.lost += sent.lost and sent.pace is not None

    def await_late(self, seq: int, sent: Sent) -> None:
        """Keep a lost probe, as its answer may still arrive."""
        self._sent[seq] = sent._replace(lost=True)

    def drop_expired(self, now: float) -> None:
        """Drop probes whose answers would no longer be accepted."""
        while self._sent:
            seq = next(iter(self._sent))
            sent = self._sent[seq]
            if sent.at_s + sent.timeout_s + LATE_S > now:
                return
            self._forget(self._sent.pop(seq))

    def drop_all(self, now: float) -> None:
        """Drop all probes in flight, and start again."""
        for sent in self._sent.values():
            self._forget(sent)
        self._sent.clear()
        self.round_s = now
        gateway = self.gateway
        self._gateway_s = max(now, gateway.last_s + gateway.spacing_s) if gateway else now

    def _ask(self, probes: list[Ask], target: ProbeTarget, now: float, pace: Pace | None) -> None:
        self._seq += 1
        target.last_s = now
        timeout_s = target.timeout_s(
            self.excess_s, self.floor_s if target in self.deciding else 0.0
        )
        if target in self.deciding:
            earned = BURST_RATE * (now - self._credit_s)
            self._credit = max(0.0, min(self._credit + earned, float(BURST_ROUNDS)) - 1)
            self._credit_s = now
        self._sent[self._seq] = Sent(now, target, pace, timeout_s)
        probes.append(Ask(self._seq, target.index, timeout_s))

    def _ask_round(self, probes: list[Ask], now: float, pace: Pace) -> None:
        # targets that never answered are probed in rounds only while none ever did
        pool = self._good or self.deciding
        if pace == "sparse":
            pool = [target for target in pool if target.probe.startswith("icmp:")] or pool
        if not pool:
            self.round_s = math.inf
            return
        target = min(pool, key=_last)
        if target.last_s + target.spacing_s <= now:
            self._ask(probes, target, now, pace if self._good else None)
            target = min(pool, key=_last)
            every_s = self._every_s(pace) + self._slack_s
            self._slack_s = 0.0
        else:
            every_s = 0.0
        self.round_s = max(now + every_s, target.last_s + target.spacing_s)

    def _wait_s(self) -> float:
        """How long after the last probe the next round of a burst may follow."""
        return (1 - self._credit) / BURST_RATE if self.paced else 0.0

    def _every_s(self, pace: Pace) -> float:
        match pace:
            case "burst":
                return max(BURST_S, self._wait_s())
            case "waiting":
                return WAITING_S
            case "waiting long":
                return WAITING_LONG_S
            case "sparse":
                return max(SPARSE_S, self._quiet_s)
        return self._quiet_s

    def _ask_background(self, probes: list[Ask], now: float) -> None:
        for target in self.deciding:
            if target.good or target.due_s > now:
                continue
            if target.last_s + target.spacing_s <= now:
                self._ask(probes, target, now, None)
            new = not target.proven and target.lost < PATIENT_ASKS
            target.due_s = now + (FIRST_BACKGROUND_S if new else BACKGROUND_S)
        self.update_good()

    def _ask_gateway(self, probes: list[Ask], gateway: ProbeTarget, now: float, pace: Pace) -> None:
        if gateway.last_s + gateway.spacing_s <= now:
            self._ask(probes, gateway, now, None)
        mute = not gateway.proven and gateway.lost >= PATIENT_ASKS
        every_s = GATEWAY_MUTE_S if mute else GATEWAY_S[pace]
        if gateway.proven and gateway.losses_in_row == 1:  # is it silent, or was it a single loss?
            every_s = min(every_s, WAITING_S)
        self._gateway_s = now + every_s

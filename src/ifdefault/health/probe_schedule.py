"""Who is asked when: rounds at the pace of the moment, and beside them the gateway and those
targets whose silence means nothing.

Rules: a round asks one target, the one among the good that was asked longest ago. No target is
asked more than once in its `spacing_s`, whatever the pace. What wasn't sent can't be lost: a
schedule that was missed is taken up again, never made up for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

from ifdefault.health.target import ALONE_SPACING_S, ProbeTarget
from ifdefault.model.health import Ask

Pace = Literal["quiet", "burst", "waiting", "waiting long"]
BURST_S = 0.05
WAITING_S = 0.25
WAITING_LONG_S = 0.5
FIRST_BACKGROUND_S = 2.0  # those that never answered, at first
BACKGROUND_S = 10.0
PATIENT_ASKS = 10
GATEWAY_S: dict[Pace, float] = {"quiet": 5.0, "burst": 0.2, "waiting": 1.0, "waiting long": 1.0}
GATEWAY_MUTE_S = 60.0  # it doesn't answer pings at all
SLACK = 0.2  # of a quiet interval
EXCESS_FADE = 0.98  # of how late answers come, with each answer
LATE_S = 3.0  # how long after its timeout an answer is still known
OVERDUE_S = 1.0  # after its timeout: a probe of which nothing was heard is nobody's loss


class Sent(NamedTuple):
    at_s: float
    target: ProbeTarget
    pace: Pace | None  # None: no round, so that only an answer means something
    timeout_s: float
    lost: bool = False


_last = attrgetter("last_s")


class ProbeSchedule:
    """The schedule of one path. `beyond` are its targets; `judges` those whose silence may
    bring it down: them, or the gateway alone where nothing else is to be asked."""

    def __init__(
        self, beyond: Sequence[ProbeTarget], gateway: ProbeTarget | None, quiet_s: float, now: float
    ):
        self.beyond = tuple(beyond)
        self.gateway = gateway
        self.judges = self.beyond or ((gateway,) if gateway else ())
        if gateway and not beyond:
            gateway.spacing_s = ALONE_SPACING_S
        self.excess_s = 0.0  # by how much answers came late, lately
        self.round_s = now
        self._quiet_s = quiet_s
        self._gateway_s = self._background_s = now
        self._slack_s = 0.0
        self._seq = 0
        self._sent: dict[int, Sent] = {}
        self._good: list[ProbeTarget] = []
        self.sort()

    @property
    def good(self) -> Sequence[ProbeTarget]:
        return self._good

    def sort(self) -> None:
        """Tell the good from the others anew, after one of them changed."""
        self._good = [target for target in self.judges if target.good]
        others = [target.due_s for target in self.judges if not target.good]
        self._background_s = min(others, default=math.inf)

    def wake_s(self) -> float:
        gateway_s = self._gateway_s if self.gateway and self.beyond else math.inf
        return min(self.round_s, self._background_s, gateway_s)

    def asks(self, now: float, pace: Pace) -> list[Ask]:
        """What is due."""
        found: list[Ask] = []
        if now >= self.round_s:
            self._ask_round(found, now, pace)
        if now >= self._background_s:
            self._ask_background(found, now)
        if self.gateway and self.beyond and now >= self._gateway_s:
            self._ask_gateway(found, self.gateway, now, pace)
        return found

    def hurry(self, now: float) -> None:
        """A burst begins: the next round at once, and all others are asked too."""
        self._slack_s = 0.0
        if self._good:
            oldest = min(self._good, key=_last)
            self.round_s = min(self.round_s, max(now, oldest.last_s + oldest.spacing_s))
        for target in self.judges:
            if not target.good:
                target.due_s = max(now, target.last_s + target.spacing_s)
                self._background_s = min(self._background_s, target.due_s)
        gateway = self.gateway
        if gateway and (gateway.proven or not gateway.lost):
            self._gateway_s = min(self._gateway_s, max(now, gateway.last_s + gateway.spacing_s))

    def calm(self) -> None:
        """A burst is over: back to the quiet pace."""
        last_s = max((target.last_s for target in self._good), default=self.round_s)
        self.round_s = max(self.round_s, last_s + self._quiet_s)

    def set_aside(self, target: ProbeTarget, now: float) -> None:
        """Its silence means nothing any more; it is asked now and then."""
        target.aside = True
        target.due_s = now
        self.sort()

    def clear_targets(self) -> None:
        """The path itself was dead: what its targets lost meanwhile was its fault."""
        for target in self.judges:
            target.aside, target.row = False, 0
        self.sort()

    def spare(self, now: float, at_s: float) -> None:
        """The path is known to have carried traffic at `at_s`: a quiet round may be saved, but
        never two in a row. The one after waits a little, for what is known next."""
        self._slack_s = self._quiet_s * SLACK
        last_s = max((target.last_s for target in self._good), default=now)
        self.round_s = max(self.round_s, min(at_s + self._quiet_s, last_s + 2 * self._quiet_s))

    def time(self, target: ProbeTarget, rtt_s: float) -> None:
        """An answer of a target took so long."""
        self.excess_s = max(self.excess_s * EXCESS_FADE, 1.25 * target.time(rtt_s))

    def take(self, seq: int) -> Sent | None:
        """The probe of this number, which is forgotten; None if it is unknown."""
        return self._sent.pop(seq, None)

    def await_late(self, seq: int, sent: Sent) -> None:
        """It was lost, but its answer may still come."""
        self._sent[seq] = sent._replace(lost=True)

    def forget(self, now: float) -> None:
        """Drop probes that nobody will answer any more."""
        while self._sent:
            seq = next(iter(self._sent))
            sent = self._sent[seq]
            if sent.at_s + sent.timeout_s + LATE_S > now:
                return
            del self._sent[seq]

    def drop_all(self, now: float) -> None:
        """Whatever was sent says nothing any more; begin anew."""
        self._sent.clear()
        self.round_s = now
        gateway = self.gateway
        self._gateway_s = max(now, gateway.last_s + gateway.spacing_s) if gateway else now

    def _ask(self, found: list[Ask], target: ProbeTarget, now: float, pace: Pace | None) -> None:
        self._seq += 1
        target.last_s = now
        timeout_s = target.timeout_s(self.excess_s)
        self._sent[self._seq] = Sent(now, target, pace, timeout_s)
        found.append(Ask(self._seq, target.index, timeout_s))

    def _ask_round(self, found: list[Ask], now: float, pace: Pace) -> None:
        # Those that never answered are asked in rounds only while nobody ever did.
        pool = self._good or self.judges
        if not pool:
            self.round_s = math.inf
            return
        target = min(pool, key=_last)
        if target.last_s + target.spacing_s <= now:
            self._ask(found, target, now, pace if self._good else None)
            target = min(pool, key=_last)
            every_s = self._every_s(pace) + self._slack_s
            self._slack_s = 0.0
        else:
            every_s = 0.0
        self.round_s = max(now + every_s, target.last_s + target.spacing_s)

    def _every_s(self, pace: Pace) -> float:
        match pace:
            case "burst":
                return BURST_S
            case "waiting":
                return WAITING_S
            case "waiting long":
                return WAITING_LONG_S
        return self._quiet_s

    def _ask_background(self, found: list[Ask], now: float) -> None:
        for target in self.judges:
            if target.good or target.due_s > now:
                continue
            if target.last_s + target.spacing_s <= now:
                self._ask(found, target, now, None)
            new = not target.proven and target.lost < PATIENT_ASKS
            target.due_s = now + (FIRST_BACKGROUND_S if new else BACKGROUND_S)
        self.sort()

    def _ask_gateway(self, found: list[Ask], gateway: ProbeTarget, now: float, pace: Pace) -> None:
        if gateway.last_s + gateway.spacing_s <= now:
            self._ask(found, gateway, now, None)
        mute = not gateway.proven and gateway.lost >= PATIENT_ASKS
        every_s = GATEWAY_MUTE_S if mute else GATEWAY_S[pace]
        if gateway.proven and gateway.row == 1:  # silent, or just a loss?
            every_s = min(every_s, WAITING_S)
        self._gateway_s = now + every_s

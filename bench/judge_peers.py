"""The rules by which dpinger, lsm and mwan3 declare a link dead, from their source code.

Rules: only the rule, with its own timing and recovery, on a simulated link; the time of processes
and scripts isn't included, so a peer is faster here than in practice. A reply takes RTT_S. `falls`
yields the times at which the rule declares the link dead, and leaps over answered probes.

- dpinger (dpinger.c): an array of the probes sent within the time period and the loss interval;
  lost are those older than the loss interval; alarm if lost * 100 / (lost + received), an integer,
  is above the limit; an alarm ends at the 10th check in a row below it.
- lsm (lsm.c): decides once in a second over the last 100 packets: down at max_packet_loss timeouts
  among them, or at max_successive_pkts_lost in a row that are timed out *or waiting*, the last one
  sent aside; up again at min_packet_loss or fewer and min_successive_pkts_rcvd in a row.
- mwan3 (mwan3track): pings its targets one after the other until `reliability` of them answered,
  waiting `timeout` for each; sleeps `interval`; down after `down` failed rounds in a row, up after
  `up` good ones.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from bench.judge_links import Case, Dying, LossModel
from bench.judge_ours import DAY_S, RTT_S


class Rule(Protocol):
    @property
    def peer(self) -> str: ...

    @property
    def settings(self) -> str: ...

    def falls(self, link: LossModel, until_s: float) -> Iterator[float]:
        """When it declares the link dead."""


@dataclass(frozen=True, slots=True)
class Dpinger:
    send_s: float = 0.5
    loss_s: float = 2.0
    period_s: float = 60.0
    percent: int = 20
    alert_s: float = 1.0
    peer: str = "dpinger"

    @property
    def settings(self) -> str:
        return (
            f"every {self.send_s:g} s, lost after {self.loss_s:g} s, more than {self.percent} %"
            f" of {self.period_s:g} s"
        )

    def falls(self, link: LossModel, until_s: float) -> Iterator[float]:
        size = round((self.period_s + self.loss_s) / self.send_s)
        young = round(self.loss_s / self.send_s)  # too young to be lost
        checks = max(1, round(self.alert_s / self.send_s))
        sent: deque[bool] = deque([False] * size, size)  # True is lost
        old = size - young
        lost = fresh = decay = count = 0  # fresh: too young to count as lost, never answered
        at_s = 0.0
        while at_s < until_s:
            if not (lost or fresh or decay):
                spare = link.spare(at_s, self.send_s) // checks * checks
                if spare > checks:
                    link.skip(spare)
                    at_s += spare * self.send_s
                    continue
            ages, new = sent[old], link.lost(at_s)
            lost += ages - sent[0]
            fresh += new - ages
            sent.append(new)
            at_s += self.send_s
            count += 1
            if count % checks:
                continue
            received = size - lost - fresh
            if lost * 100 // max(1, lost + received) > self.percent:
                if decay == 0:
                    yield at_s
                decay = 10
            elif decay:
                decay -= 1


@dataclass(frozen=True, slots=True)
class Lsm:
    interval_s: float = 1.0
    timeout_s: float = 1.0
    in_a_row: int = 7
    among: int = 15
    peer: str = "lsm"

    @property
    def settings(self) -> str:
        return (
            f"every {self.interval_s:g} s, lost after {self.timeout_s:g} s, {self.in_a_row} in a"
            f" row or {self.among} of 100"
        )

    def falls(self, link: LossModel, until_s: float) -> Iterator[float]:
        window = 100
        young = int(self.timeout_s / self.interval_s)
        sent: deque[bool] = deque([False] * window, window)
        old = window - young
        down = False
        lost = fresh = row = good = count = 0
        checks = max(1, round(1.0 / self.interval_s))
        at_s = 0.0
        while at_s < until_s:
            if not (lost or fresh or down):
                spare = link.spare(at_s, self.interval_s) // checks * checks
                if spare > checks:
                    link.skip(spare)
                    at_s += spare * self.interval_s
                    row = 0
                    continue
            # lsm counts the last but one probe as missing while it waits
            row, good = (row + 1, 0) if sent[-1] else (0, good + 1)
            ages, new = sent[old], link.lost(at_s)
            lost += ages - sent[0]
            fresh += new - ages
            sent.append(new)
            at_s += self.interval_s
            count += 1
            if count % checks:
                continue
            if not down and (row >= self.in_a_row or lost >= self.among):
                down = True
                yield at_s
            elif down and lost <= 5 and good >= 10:
                down = False


@dataclass(frozen=True, slots=True)
class Mwan3:
    interval_s: float = 10.0
    timeout_s: float = 4.0
    down: int = 5
    up: int = 5
    reliability: int = 2
    targets: int = 4
    peer: str = "mwan3"

    @property
    def settings(self) -> str:
        return (
            f"every {self.interval_s:g} s, timeout {self.timeout_s:g} s, {self.down} times fewer"
            f" than {self.reliability} of {self.targets}"
        )

    def falls(self, link: LossModel, until_s: float) -> Iterator[float]:
        full = self.down + self.up
        score, at_s = full, 0.0
        turn_s = self.interval_s + self.reliability * RTT_S
        while at_s < until_s:
            if score == full:
                turns = link.spare(at_s, turn_s / self.reliability) // self.reliability
                if turns > 1:
                    link.skip(turns * self.reliability)
                    at_s += turns * turn_s
                    continue
            answered = asked = 0
            while asked < self.targets and answered < self.reliability:
                asked += 1
                if link.lost(at_s):
                    at_s += self.timeout_s
                else:
                    answered += 1
                    at_s += RTT_S
            if answered < self.reliability:
                score -= 1
                if score < self.up:
                    score = 0
                if score == self.up:
                    yield at_s
                    score = 0
            else:
                score += 1
                if score >= self.up:  # it was up, or is again
                    score = full
            at_s += self.interval_s


DEFAULTS: tuple[Rule, ...] = (Dpinger(), Lsm(), Mwan3())

# from hasty to patient
SWEEP: tuple[Rule, ...] = (
    *(
        Dpinger(0.1, 0.3, period_s, percent, 0.1)
        for period_s, percent in ((1, 20), (2, 20), (2, 40), (5, 20), (5, 40), (10, 40), (20, 30))
    ),
    *(
        Lsm(0.1, 0.3, in_a_row, among)
        for in_a_row, among in ((3, 15), (5, 15), (7, 30), (10, 60), (15, 60), (30, 60))
    ),
    *(
        Mwan3(1, 1, down, 5, 1, targets)
        for down, targets in ((1, 1), (2, 1), (1, 4), (2, 4), (3, 4))
    ),
)


@dataclass(frozen=True, slots=True)
class Alarms:
    """`days` is shorter than requested if ENOUGH alarms came before."""

    days: float
    falls: int

    @property
    def per_30_days(self) -> float:
        return self.falls / self.days * 30


ENOUGH = 300


def watch(rule: Rule, case: Case, days: float, seed: int) -> Alarms:
    """Count the false alarms on a link that is up throughout."""
    falls = 0
    for at_s in rule.falls(case.make(seed), days * DAY_S):
        falls += 1
        if falls == ENOUGH:
            return Alarms(at_s / DAY_S, falls)
    return Alarms(days, falls)


def delay_s(rule: Rule, case: Case, seed: int, part: float) -> float:
    """How long it takes to detect that the link died after five minutes; NaN if it was declared
    dead before."""
    dies_s = 300.0 + part * 30.0
    link = Dying(case.make(seed), dies_s)
    falls = rule.falls(link, dies_s + 600.0)
    return next((at_s - dies_s for at_s in falls if at_s > dies_s), math.nan)

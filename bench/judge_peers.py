"""The rules by which dpinger, lsm and mwan3 judge, from their sources, on a simulated line.

Rules: only the rule, with its own timing and its own recovery; what their processes and scripts
cost on top isn't counted, so a peer fares rather better here than in life. A reply takes RTT_S.
`falls` yields the times at which the rule calls the line dead, and leaps over what is answered.

- dpinger (dpinger.c): an array of the probes sent within the time period and the loss interval;
  lost are those older than the loss interval; alarm if lost * 100 / (lost + received), an integer,
  is above the limit; an alarm ends at the 10th check in a row below it.
- lsm (lsm.c): decides once in a second over the last 100 packets: down at max_packet_loss timeouts
  among them, or at max_successive_pkts_lost in a row that are timed out *or waiting*, the last one
  sent aside; up again at min_packet_loss or fewer and min_successive_pkts_rcvd in a row.
- mwan3 (mwan3track): pings its targets one after the other until `reliability` of them answered,
  waiting `timeout` for each; sleeps `interval`; down after `down` failed turns in a row, up after
  `up` good ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from bench.judge_lines import Line
from bench.judge_ours import RTT_S


class Rule(Protocol):
    @property
    def peer(self) -> str: ...

    @property
    def settings(self) -> str: ...

    def falls(self, line: Line, until_s: float, start_s: float) -> Iterator[float]:
        """When it calls the line dead; it begins at `start_s`."""


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

    def falls(self, line: Line, until_s: float, start_s: float) -> Iterator[float]:
        size = round((self.period_s + self.loss_s) / self.send_s)
        young = round(self.loss_s / self.send_s)  # too young to be lost
        checks = max(1, round(self.alert_s / self.send_s))
        sent: deque[bool] = deque([False] * size, size)  # True is lost
        lost = decay = count = 0
        at_s = start_s
        while at_s < until_s:
            if not lost and not decay and not any(sent):
                if (spare := line.spare(at_s, self.send_s)) > checks:
                    spare -= spare % checks
                    line.skip(spare)
                    at_s += spare * self.send_s
                    continue
            # the one that leaves the array, the one that is old enough to be lost, the new one
            lost += sent[size - young] - sent[0]
            sent.append(line.lost(at_s))
            at_s += self.send_s
            count += 1
            if count % checks:
                continue
            # The youngest: whatever isn't answered yet counts neither way.
            received = size - lost - sum(sent[i] for i in range(size - young, size))
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

    def falls(self, line: Line, until_s: float, start_s: float) -> Iterator[float]:
        window = 100
        young = int(self.timeout_s / self.interval_s)
        sent: deque[bool] = deque([False] * window, window)
        down = False
        lost = row = good = count = 0
        checks = max(1, round(1.0 / self.interval_s))
        at_s = start_s
        while at_s < until_s:
            if not lost and not down and not any(sent):
                if (spare := line.spare(at_s, self.interval_s)) > checks:
                    spare -= spare % checks
                    line.skip(spare)
                    at_s += spare * self.interval_s
                    row = 0
                    continue
            lost += sent[window - young] - sent[0] if young else -sent[0]
            before = sent[-1]  # the one sent before the last counts as missing while it waits
            row = row + 1 if before else 0
            good = 0 if before else good + 1
            sent.append(line.lost(at_s))
            lost += sent[-1] if not young else 0
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

    def falls(self, line: Line, until_s: float, start_s: float) -> Iterator[float]:
        full = self.down + self.up
        score, at_s = full, start_s
        turn_s = self.interval_s + self.reliability * RTT_S
        while at_s < until_s:
            if score == full:
                # A turn takes `reliability` pings; their times within it don't matter to a line
                # that answers them all.
                spare = line.spare(at_s, min(RTT_S, turn_s)) // self.reliability
                calm = min(spare, int(line.spare(at_s, turn_s)))
                if calm > 1 and _is_memoryless(line):
                    line.skip(spare * self.reliability)
                    at_s += spare * turn_s
                    continue
                if calm > 1:
                    at_s += (calm - 1) * turn_s
            answered = asked = 0
            while asked < self.targets and answered < self.reliability:
                asked += 1
                if line.lost(at_s):
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
                score = score + 1
                if score > self.up:
                    score = full
            at_s += self.interval_s

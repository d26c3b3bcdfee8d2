"""Counts the probes of a path and its transitions, for metrics.

Rules: rounds are counted, which the path is judged by; probes in the background aren't. A loss is
counted once no late answer can repair it, so that counters only grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from ifdefault.model.config import Family
from ifdefault.model.health import PathState
from ifdefault.model.report import DECIDE_BUCKETS_S, RTT_BUCKETS_S, PathCounters


@dataclass(slots=True)
class PathCounts:
    answered: int = 0
    lost: int = 0
    rtt_s: float = 0.0
    decide_s: float = 0.0
    entered: Counter[PathState] = field(default_factory=Counter)
    _rtt: list[int] = field(default_factory=lambda: [0] * (len(RTT_BUCKETS_S) + 1))
    _decide: list[int] = field(default_factory=lambda: [0] * (len(DECIDE_BUCKETS_S) + 1))

    def record_answer(self, rtt_s: float) -> None:
        self.answered += 1
        self.rtt_s += rtt_s
        self._rtt[bisect_left(RTT_BUCKETS_S, rtt_s)] += 1

    def record_decision(self, took_s: float) -> None:
        """The path was declared down so long after its first lost probe was sent."""
        self.decide_s += took_s
        self._decide[bisect_left(DECIDE_BUCKETS_S, took_s)] += 1

    def report(self, uplink: str, family: Family) -> PathCounters:
        entered = tuple(sorted(self.entered.items()))
        rtt, decide = tuple(self._rtt), tuple(self._decide)
        counts = (self.answered, self.lost, self.rtt_s, rtt, entered, self.decide_s, decide)
        return PathCounters(uplink, family, *counts)

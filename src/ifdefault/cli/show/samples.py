"""What `top` remembers of the last minutes: loss and round trip of each path, traffic of each
uplink.

Rules: values alone; times are those of the monotonic clock. Time is divided into slots that stay
where they are, so that a chart only moves by whole cells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifdefault.model.config import Family
    from ifdefault.model.report import CounterReport, DaemonStatus, PathCounters
    from ifdefault.monitor.history.records import Interval, Tally

SPAN_S = 300.0  # how much is remembered
_HOUR_S = 3700.0  # and as a history
_SEED_S = 2  # between two samples made of a minute of the history
Key = tuple[str, "Family"]


@dataclass(frozen=True, slots=True)
class Sample:
    """`lost`: whether probes were lost, or the path was down."""

    at_s: float
    rtt_ms: float
    lost: bool = False
    down: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """A cell of a chart. `rtt_ms`: the mean, None if nothing was answered."""

    rtt_ms: float | None = None
    lost: bool = False
    down: bool = False


@dataclass(slots=True)
class Samples:
    paths: dict[Key, deque[Sample]] = field(default_factory=dict)
    rates: dict[str, deque[tuple[float, float, float]]] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    minutes: dict[Key, dict[int, Slot]] = field(default_factory=dict)  # of the history, by its time
    _seeded: bool = False
    _counted: dict[Key, PathCounters] = field(default_factory=dict)

    def add(self, status: DaemonStatus, counters: CounterReport) -> None:
        """What became of the probes since the last time, and the traffic now."""
        now = status.now_s
        counted = {(c.uplink, c.family): c for c in counters.paths}
        for path in status.health:
            key = (path.uplink, path.family)
            sample = _sample(now, self._counted.get(key), counted.get(key), path.state == "down")
            self.paths.setdefault(key, deque()).append(sample)
        self._counted = counted
        for uplink, (bits_in, bits_out) in status.rates.items():
            self.rates.setdefault(uplink, deque()).append((now, bits_in, bits_out))
        self.connections = {u.uplink: u.connections for u in counters.uplinks}
        self._forget(now)

    def add_history(self, intervals: Iterable[Interval], now: float, epoch: float) -> None:
        """Minutes of the history. The first time they also stand for the samples that there would
        be if `top` had run already."""
        seeds: dict[Key, list[Sample]] = {}
        for interval in intervals:
            key, slot = (interval.path.uplink, interval.path.family), _minute(interval.tally)
            self.minutes.setdefault(key, {})[interval.at] = slot
            begin_s = interval.at - epoch + now
            for second in range(0, 60, _SEED_S) if now - SPAN_S < begin_s + 60 else ():
                lost = slot.lost and second == 0
                sample = Sample(begin_s + second, slot.rtt_ms or 0.0, lost, slot.down)
                seeds.setdefault(key, []).append(sample)
        oldest = epoch - _HOUR_S
        for kept_minutes in self.minutes.values():
            for at in [at for at in kept_minutes if at < oldest]:
                del kept_minutes[at]
        for key, samples in seeds.items() if not self._seeded else ():
            kept = self.paths.get(key, deque())
            first_s = kept[0].at_s if kept else now
            self.paths[key] = deque([s for s in samples if s.at_s < first_s] + [*kept])
        self._seeded |= bool(seeds)

    def hour(self, key: Key, epoch: float, count: int) -> list[Slot]:
        """The last minutes of the history, a slot for each."""
        last, minutes = int(epoch // 60), self.minutes.get(key, {})
        return [minutes.get(60 * n, Slot()) for n in range(last - count, last)]

    def _forget(self, now: float) -> None:
        """What is older than the span, or comes of an engine whose clock was another one."""
        for kept in self.paths.values():
            while kept and not now - SPAN_S <= kept[0].at_s <= now:
                kept.popleft()
        for rates in self.rates.values():
            while rates and not now - SPAN_S <= rates[0][0] <= now:
                rates.popleft()

    def slots(self, key: Key, now: float, count: int, slot_s: float) -> list[Slot]:
        """The last `count` slots of a path, the latest one last."""
        last = int(now // slot_s)
        by_slot: dict[int, list[Sample]] = {}
        for sample in self.paths.get(key, ()):
            by_slot.setdefault(int(sample.at_s // slot_s), []).append(sample)
        return [_slot(by_slot.get(n, ())) for n in range(last - count + 1, last + 1)]

    def rate_slots(
        self, uplink: str, now: float, count: int, slot_s: float
    ) -> list[tuple[float, float] | None]:
        """Mean bit/s in and out in the last slots."""
        last = int(now // slot_s)
        by_slot: dict[int, list[tuple[float, float]]] = {}
        for at_s, bits_in, bits_out in self.rates.get(uplink, ()):
            by_slot.setdefault(int(at_s // slot_s), []).append((bits_in, bits_out))
        found = (by_slot.get(n) for n in range(last - count + 1, last + 1))
        return [
            (sum(i for i, _ in slot) / len(slot), sum(o for _, o in slot) / len(slot))
            if slot
            else None
            for slot in found
        ]

    def peak(self) -> float:
        """The greatest bit rate of any uplink."""
        rates = (rate for kept in self.rates.values() for rate in kept)
        return max((max(bits_in, bits_out) for _, bits_in, bits_out in rates), default=0.0)


def _minute(tally: Tally) -> Slot:
    rtt_ms = tally.rtt_us / tally.answered / 1000 if tally.answered else None
    return Slot(rtt_ms, tally.lost > 0, not tally.answered and tally.down_ms > 0)


def _sample(
    now: float, before: PathCounters | None, counted: PathCounters | None, down: bool
) -> Sample:
    """Nothing but its state is known of a path that wasn't counted before, or began anew."""
    if before is None or counted is None or counted.answered < before.answered:
        return Sample(now, 0.0, down=down)
    answered, rtt_s = counted.answered - before.answered, counted.rtt_s - before.rtt_s
    rtt_ms = 1000 * rtt_s / answered if answered else 0.0
    return Sample(now, max(rtt_ms, 0.0), counted.lost > before.lost, down)


def _slot(samples: Iterable[Sample]) -> Slot:
    samples = list(samples)
    rtts = [s.rtt_ms for s in samples if s.rtt_ms and not s.down]
    down = bool(samples) and all(s.down for s in samples)
    mean = sum(rtts) / len(rtts) if rtts else None
    return Slot(mean, any(s.lost for s in samples), down)


def scale(slots: Iterable[Slot]) -> float:
    """The round trip at the top of a chart: what is usual is half as high, unless the worst needs
    the room."""
    rtts = [slot.rtt_ms for slot in slots if slot.rtt_ms is not None]
    return max(max(rtts), 2 * median(rtts)) if rtts else 1.0

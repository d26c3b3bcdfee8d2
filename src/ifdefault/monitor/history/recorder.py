"""Turns what the feed reports into what is to be written: minutes, traffic, spans, events.

Rules: no clock, no file: times come with the reports. A path's state follows the events; each
sample corrects it, where events were missed. What lies between two samples that are far apart isn't
known, and is no state's time: an engine that was away, a host that slept, a clock that was set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ifdefault.model.health import PathState
from ifdefault.model.report import CounterReport, Event, PathCounters, UplinkCounters
from ifdefault.monitor.feed import Away, NewEvents, Report, Sample
from ifdefault.monitor.history.records import (
    Batch,
    Gone,
    Path,
    Span,
    Tally,
    Target,
    add_buckets,
    in_state,
    minutes_between,
)
from ifdefault.monitor.history.transition import state_before, transition_of

GAP_S = 120.0  # between samples: what is longer isn't known
_Counts = dict[tuple[Path, str], tuple[int, int]]  # answered and lost, by path and target


@dataclass(slots=True)
class _State:
    """`counted_until`: its time is counted until then."""

    state: PathState
    since: float
    cause: str
    counted_until: float


class Recorder:
    """`batch`: what there is to write; whoever takes it puts another one there."""

    def __init__(
        self,
        spans: Iterable[Span] = (),
        counters: Mapping[str, tuple[int, int]] | None = None,
        seen: float = 0.0,
    ) -> None:
        """`spans`: the open ones, and `counters`: bytes by uplink, both as known at `seen`."""
        self.batch = Batch()
        self._paths = {s.path: _State(s.state, s.since, s.cause, seen) for s in spans}
        self._bytes = dict(counters or {})
        self._last: Sample | None = None
        self._began: dict[Path, _Counts] = {}  # of outages
        self._ended: dict[Path, _Counts] = {}

    def receive(self, report: Report) -> None:
        match report:
            case NewEvents():
                for event in report.events:
                    self.note(event)
            case Sample():
                self._sample(report)
            case Away():
                self._last = None

    def note(self, event: Event) -> None:
        self.batch.events.append(event)
        if event.serial:
            self.batch.serial = event.serial
        if (change := transition_of(event)) is not None:
            path, state, cause = change
            known = self._paths.get(path)
            if known is not None and known.state != state_before(event):
                self._lose(path, known, event.at)
            self._enter(path, state, event.at, cause)

    def current(self) -> tuple[Span, ...]:
        """The spans of now, for a file that doesn't have them."""
        return tuple(
            Span(path, state.state, state.since, None, state.cause)
            for path, state in sorted(self._paths.items())
        )

    # --- states -----------------------------------------------------------------------------

    def _enter(self, path: Path, state: PathState, at: float, cause: str) -> None:
        """A path is in a state since then."""
        known = self._paths.get(path)
        if known is not None:
            if at < known.since or state == known.state:  # an event that came before
                return
            self._count(path, known, at)
        self.batch.spans.append(Span(path, state, at, None, cause))
        self._paths[path] = _State(state, at, cause, at)
        self._note_targets(path, state)

    def _lose(self, path: Path, known: _State, at: float) -> None:
        """What is known of a path now isn't what came of what was known. If that was long ago, its
        state ended then, as far as anybody can tell: an outage doesn't last while the host is off.
        """
        if at - known.counted_until > GAP_S:
            self.batch.spans.append(Gone(path, known.counted_until))

    def _count(self, path: Path, known: _State, until: float) -> None:
        """Count a state's time up to now, if it is known."""
        gap_s = until - known.counted_until
        if 0 < gap_s <= GAP_S:
            for minute, ms in minutes_between(known.counted_until, until):
                self.batch.add(minute, path, in_state(known.state, ms))
        known.counted_until = until

    def _correct(self, sample: Sample) -> None:
        """What the status says of states is right."""
        seen = set()
        for health in sample.status.health:
            path = Path(health.uplink, health.family)
            seen.add(path)
            known = self._paths.get(path)
            if known is None or known.state != health.state:
                since = sample.epoch(health.since_s)
                if known is not None:  # its change was missed, and wasn't before it was seen last
                    since = min(max(since, known.counted_until), sample.at)
                    self._lose(path, known, sample.at)
                self._enter(path, health.state, since, health.cause)
            known = self._paths[path]
            known.since = min(known.since, sample.at)  # the clock was set back
            self._count(path, known, sample.at)
        for path in self._paths.keys() - seen:  # it is no longer in the config
            self.batch.spans.append(Gone(path, sample.at))
            del self._paths[path]

    # --- samples ----------------------------------------------------------------------------

    def _sample(self, sample: Sample) -> None:
        self._correct(sample)
        last, self._last = self._last, sample
        if last is not None and not 0 <= sample.at - last.at <= GAP_S:
            last = None
        before = _paths(last.counters) if last else {}
        if last is not None and last.counters.started_at != sample.counters.started_at:
            before = {path: _nothing(counters) for path, counters in before.items()}
        middle = int((last.at + sample.at) / 2) if last else 0
        for path, now in _paths(sample.counters).items():
            if path in before:
                self.batch.add(middle, path, difference(before[path], now))
        for uplink in sample.counters.uplinks:
            self._carry(uplink, int(sample.at))
        for path, known in self._paths.items():
            if known.state == "down":
                self._began.setdefault(path, _targets(sample, path))
        self.batch.counters = dict(self._bytes)
        self.batch.seen = sample.at

    def _carry(self, now: UplinkCounters, at: int) -> None:
        """Bytes over an uplink since it was counted last: before a restart of this process, too.
        They begin at 0 where the link is new."""
        had = self._bytes.get(now.uplink)
        self._bytes[now.uplink] = total = now.bytes_in, now.bytes_out
        if had is None or had == total:
            return
        if total[0] < had[0] or total[1] < had[1]:
            had = 0, 0
        self.batch.add_traffic(at, now.uplink, total[0] - had[0], total[1] - had[1])

    # --- evidence ---------------------------------------------------------------------------

    def _note_targets(self, path: Path, state: PathState) -> None:
        """What each target answered during an outage, by all uplinks of its family: between the
        first sample in it and the last one, so that nothing before or after it is counted."""
        counts = _targets(self._last, path) if self._last else {}
        if state == "recovering":
            self._ended[path] = counts
        elif state != "down" and (began := self._began.pop(path, None)) is not None:
            ended = self._ended.pop(path, counts)
            self.batch.targets.append((path, tuple(_between(began, ended))))


def _targets(sample: Sample, path: Path) -> _Counts:
    return {
        (Path(health.uplink, health.family), target.probe): (target.answered, target.lost)
        for health in sample.status.health
        if health.family == path.family
        for target in health.targets
    }


def _between(began: _Counts, ended: _Counts) -> Iterator[Target]:
    for (path, probe), (answered, lost) in ended.items():
        had_answered, had_lost = began.get((path, probe), (answered + 1, 0))
        probes = answered + lost - had_answered - had_lost
        if answered >= had_answered and probes > 0:  # else it is new, or counting began anew
            yield Target(path, probe, answered - had_answered, max(lost - had_lost, 0))


def _paths(counters: CounterReport) -> dict[Path, PathCounters]:
    return {Path(each.uplink, each.family): each for each in counters.paths}


def _nothing(counters: PathCounters) -> PathCounters:
    return replace(counters, answered=0, lost=0, rtt_s=0.0, rtt=())


def difference(before: PathCounters, now: PathCounters) -> Tally:
    """What was counted between; all of it, if counting began anew."""
    if now.answered < before.answered:
        before = _nothing(before)
    return Tally(
        now.answered - before.answered,
        max(now.lost - before.lost, 0),  # a probe that is answered late was counted as lost
        max(round((now.rtt_s - before.rtt_s) * 1e6), 0),
        add_buckets(now.rtt, tuple(-count for count in before.rtt)),
    )

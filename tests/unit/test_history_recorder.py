"""From what the feed reports to what is written: simulated paths, a clock that jumps, restarts."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.model.health import Health, PathState, TargetHealth, Transition
from ifdefault.model.report import (
    CounterReport,
    DaemonStatus,
    Event,
    PathCounters,
    UplinkCounters,
)
from ifdefault.monitor.feed import Away, NewEvents, Sample
from ifdefault.monitor.history.outages import outages
from ifdefault.monitor.history.recorder import Recorder
from ifdefault.monitor.history.records import (
    Batch,
    Gone,
    Path,
    Span,
    Tally,
    minutes_between,
)
from ifdefault.monitor.history.schema import PackSum, pack, pack_add, unpack
from ifdefault.monitor.history.transition import state_before, transition_of

A4 = Path("isp-a", 4)
T = 1_800_000_000.0


def _event(at: float, was: PathState, state: PathState, serial: int = 1) -> Event:
    text = str(Transition(0.0, "isp-a", 4, was, state, "why (really)"))
    return Event(at, "path", "isp-a", text, "error", serial)


def _sample(
    at: float,
    state: PathState = "up",
    since: float | None = None,
    *,
    answered: int = 0,
    lost: int = 0,
    started_at: float = 0.0,
    moved: int = 0,
    targets: tuple[TargetHealth, ...] = (),
) -> Sample:
    """The status's times are monotonic: here those of the clock, less `T`."""
    since = at if since is None else since
    health = Health("isp-a", 4, state, since - T, "why", targets=targets)
    counters = PathCounters("isp-a", 4, answered, lost, answered / 100, (0, answered), (), 0.0, ())
    return Sample(
        at,
        DaemonStatus(1, 0.0, at - T, "c", health=(health,)),
        CounterReport(started_at, (counters,), (UplinkCounters("isp-a", moved, 2 * moved, 0),)),
    )


def _total(batch: Batch) -> Tally:
    return sum(batch.minutes.values(), Tally())


@pytest.mark.parametrize("state", get_args(PathState))
def test_a_transition_is_what_the_engine_wrote(state: PathState) -> None:
    assert transition_of(_event(T, "up", state)) == (A4, state, "why (really)")
    assert state_before(_event(T, state, "up")) == state


def test_other_events_are_none() -> None:
    for kind, text in (("path", "isp-a: odd"), ("primary", "isp-a IPv4: up -> down (x)")):
        assert transition_of(Event(T, kind, "isp-a", text)) is None


def test_counts_are_what_lies_between_samples() -> None:
    recorder = Recorder()
    for at, answered, lost in ((0, 1000, 50), (15, 1030, 50), (30, 1055, 55)):
        recorder.receive(_sample(T + at, answered=answered, lost=lost))
    total = _total(recorder.batch)
    assert (total.answered, total.lost, total.rtt) == (55, 5, (0, 55))
    assert total.rtt_us == 550_000
    assert total.up_ms == 30_000


def test_a_restarted_engine_counts_from_nothing() -> None:
    recorder = Recorder()
    recorder.receive(_sample(T, answered=1000, started_at=1.0))
    recorder.receive(_sample(T + 15, answered=1200, started_at=2.0))
    assert _total(recorder.batch).answered == 1200


@pytest.mark.parametrize("jump_s", [-86400.0, 3600.0, 86400.0 * 1000])
def test_a_clock_that_jumps_adds_no_time(jump_s: float) -> None:
    recorder = Recorder()
    recorder.receive(_sample(T, answered=10))
    recorder.receive(_sample(T + jump_s, answered=20))
    recorder.receive(_sample(T + jump_s + 15, answered=30))
    total = _total(recorder.batch)
    assert (total.answered, total.known_ms) == (10, 15_000)
    recorder.receive(NewEvents((_event(T + jump_s + 20, "up", "down"),)))
    assert recorder.batch.spans[-1].since == T + jump_s + 20, "and transitions are heard"


def test_an_engine_that_is_away_is_no_states_time() -> None:
    recorder = Recorder()
    recorder.receive(_sample(T))
    recorder.receive(Away(T, "no daemon runs"))
    recorder.receive(_sample(T + 600))
    recorder.receive(_sample(T + 610))
    assert _total(recorder.batch).known_ms == 10_000


def test_a_missed_transition_is_made_up_by_the_status() -> None:
    recorder = Recorder((Span(A4, "up", T, None, "x"),), seen=T + 100)
    recorder.receive(_sample(T + 400, "down", T + 50))
    assert recorder.batch.spans == [
        Gone(A4, T + 100),
        Span(A4, "down", T + 100, None, "why"),  # not before it was last seen up
    ]


def test_an_outage_doesnt_last_while_the_host_is_off() -> None:
    recorder = Recorder((Span(A4, "down", T, None, "x"),), seen=T + 100)
    recorder.receive(NewEvents((_event(T + 9000, "unproven", "up"),)))
    assert recorder.batch.spans == [
        Gone(A4, T + 100),
        Span(A4, "up", T + 9000, None, "why (really)"),
    ]


def test_an_outage_lasts_while_only_the_monitor_is_off() -> None:
    recorder = Recorder((Span(A4, "down", T, None, "x"),), seen=T + 100)
    recorder.receive(NewEvents((_event(T + 9000, "down", "recovering"),)))
    assert recorder.batch.spans == [Span(A4, "recovering", T + 9000, None, "why (really)")]


def test_bytes_are_counted_over_a_restart_of_this_process() -> None:
    recorder = Recorder(counters={"isp-a": (100, 200)}, seen=T)
    recorder.receive(_sample(T + 3000, moved=150))
    recorder.receive(_sample(T + 3015, moved=20))  # the link is a new one
    assert [*recorder.batch.traffic.values()] == [(50 + 20, 100 + 40)]
    assert recorder.batch.counters == {"isp-a": (20, 40)}


def test_the_first_sight_of_a_link_counts_nothing() -> None:
    recorder = Recorder()
    recorder.receive(_sample(T, moved=10**12))
    assert recorder.batch.traffic == {}


def test_what_targets_answered_during_an_outage() -> None:
    def targets(answered: int, lost: int) -> tuple[TargetHealth, ...]:
        return (TargetHealth("icmp 192.0.2.1", answered, lost),)

    recorder = Recorder()
    recorder.receive(_sample(T, targets=targets(100, 1)))
    recorder.receive(NewEvents((_event(T + 5, "up", "down", 1),)))
    recorder.receive(_sample(T + 6, "down", T + 5, targets=targets(110, 11)))
    recorder.receive(_sample(T + 20, "down", T + 5, targets=targets(111, 31)))
    recorder.receive(NewEvents((_event(T + 25, "down", "recovering", 2),)))
    recorder.receive(_sample(T + 26, "recovering", T + 25, targets=targets(120, 31)))
    recorder.receive(NewEvents((_event(T + 27, "recovering", "up", 3),)))
    [(path, (target,))] = recorder.batch.targets
    assert (path, target.answered, target.lost) == (A4, 1, 20)


def test_an_uplink_that_is_removed_ends() -> None:
    recorder = Recorder()
    recorder.receive(_sample(T))
    sample = _sample(T + 15)
    recorder.receive(replace(sample, status=replace(sample.status, health=())))
    assert recorder.current() == ()


@given(st.floats(T, T + 10_000), st.floats(0, 10_000))
def test_the_minutes_of_a_time_are_all_of_it(since: float, length: float) -> None:
    parts = [*minutes_between(since, since + length)]
    assert sum(ms for _, ms in parts) == round((since + length - since) * 1000)
    assert all(minute % 60 == 0 and 0 <= ms <= 60_001 for minute, ms in parts)


_TALLIES = st.builds(
    Tally,
    *(st.integers(0, 10**6),) * 3,
    st.lists(st.integers(0, 10**6), max_size=11).map(tuple),
    *(st.integers(0, 3_600_000),) * 4,
)


@given(st.lists(_TALLIES, min_size=1))
def test_packed_counts_add_up(tallies: list[Tally]) -> None:
    aggregate, packed = PackSum(), b""
    for tally in tallies:
        aggregate.step(pack(tally.rtt))
        packed = pack_add(packed, pack(tally.rtt))
    total = sum(tallies, Tally()).rtt
    assert aggregate.finalize() == packed == pack(total)
    assert unpack(packed) == total[: len(unpack(packed))]
    assert not any(total[len(unpack(packed)) :])


_STATES = st.sampled_from(get_args(PathState))


@given(st.lists(st.tuples(_STATES, st.integers(1, 100)), max_size=20))
def test_outages_are_the_time_that_a_path_is_out(steps: list[tuple[PathState, int]]) -> None:
    at, spans = T, []
    for n, (state, length) in enumerate(steps):
        spans.append(Span(A4, state, at, at + length, "", n + 1))
        at += length
    found = outages(spans)
    for outage in found:
        inside = [s for s in spans if outage.since <= s.since < (outage.until or at)]
        assert {s.state for s in inside} <= {"down", "recovering"}
        assert inside[0].state == "down"
    out = {o.span for o in found}
    for n, span in enumerate(spans):
        before = spans[n - 1].state if n else "up"
        if span.state == "down" and before not in ("down", "recovering"):
            assert span.id in out


def test_an_outage_ends_where_nothing_is_known() -> None:
    spans = [Span(A4, "down", T, T + 100, "x", 1), Span(A4, "down", T + 9000, None, "y", 2)]
    assert [(o.since, o.until) for o in outages(spans)] == [(T, T + 100), (T + 9000, None)]


def test_the_median_and_more() -> None:
    tally = Tally(100, 0, 0, (0, 0, 0, 50, 45, 5))
    assert tally.rtt_ms(0.5) == pytest.approx(10)
    assert tally.rtt_ms(0.95) == pytest.approx(20)
    assert Tally().rtt_ms(0.5) is None

"""When a process that answers no ping is taken for dead."""

from __future__ import annotations

from ifdefault.daemon.process.spawn import Pings

STEP_S = 0.4  # between looks


def looked(pings: Pings, start_s: float, for_s: float) -> list[float]:
    """When it was found silent, while nothing was heard."""
    steps = range(1, round(for_s / STEP_S) + 1)
    times = [start_s + n * STEP_S for n in steps]
    return [now for now in times if pings.is_silent(now)]


def test_silence_is_noticed_once_and_then_after_as_long_again() -> None:
    pings = Pings()
    pings.start(100.0)
    first, second = looked(pings, 100.0, 13.0)
    assert 6.0 < first - 100.0 < 7.0
    assert 6.0 < second - first < 7.0


def test_time_in_which_the_engine_was_stopped_does_not_count() -> None:
    """Messages of that time are waiting to be read: it kills no healthy process."""
    pings = Pings()
    pings.start(100.0)
    assert not looked(pings, 100.0, 4.0)
    assert not pings.is_silent(124.0)  # 20 s later
    assert not looked(pings, 124.0, 5.6)
    assert looked(pings, 129.6, 2.0), "silence after that counts"


def test_an_answer_ends_the_silence_and_pings_are_due_now_and_then() -> None:
    pings = Pings()
    pings.start(100.0)
    assert [now for now in (100.5, 102.5, 103.0, 104.6) if pings.is_due(now)] == [102.5, 104.6]
    assert not looked(pings, 100.0, 5.6)
    pings.heard(105.6)
    assert not looked(pings, 105.6, 5.6)

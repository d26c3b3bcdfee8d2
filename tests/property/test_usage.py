"""Whatever a clock does: each byte is counted once, and in the end in the month it belongs to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.health.usage import MOST_DAYS, LocalClock, UsageCount
from ifdefault.model.health import LinkCounter
from ifdefault.model.month import DAY_S, civil, month_of
from ifdefault.model.usage import SavedUsage

BOOTED_S = 20_000 * DAY_S
HOUR_S = 3600.0
# hours that pass, bytes carried then, how far the clock is off, and what else happens
STEPS = st.lists(
    st.tuples(
        st.sampled_from((1, 1, 5, 30)),
        st.integers(0, 1 << 40),
        st.sampled_from((0.0, 0.0, 0.0, 5.0, -HOUR_S, 9 * DAY_S, -40 * DAY_S, -BOOTED_S)),
        st.sampled_from(("", "", "", "restart", "new link", "counters anew")),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 31), st.integers(0, 23))
def test_each_byte_is_counted_once_and_follows_the_clock(
    steps: list[tuple[int, int, float, str]], reset_day: int, passed_h: int
) -> None:
    clock, count, carried, link = LocalClock(), UsageCount(), 0, 1
    true_s: list[tuple[float, int]] = []
    for hours, more, off_s, what in [(0, 0, 0.0, ""), *steps, (1, 0, 0.0, "")]:
        passed_h += hours
        boot_s = HOUR_S * passed_h
        before, carried = carried, carried + more
        if what == "restart":
            saved = SavedUsage(clock.at_s, clock.boot_s, (count.saved("a"),), "this")
            clock, count = LocalClock(), UsageCount.restored(saved.uplinks[0], saved)
            clock.resume(saved, boot_s)
        elif what == "new link":
            carried, link = more, link + 1
        elif what == "counters anew" and more < before:
            carried = more
        wall_s = BOOTED_S + boot_s + off_s
        clock.tell(wall_s, wall_s, boot_s)
        count.add(clock, LinkCounter("a", link, carried, 0), "wan0")
        if hours:
            true_s.append((BOOTED_S + boot_s, more))
    total = sum(more for _, more in true_s)
    assert count.used(-1_000_000, 1_000_000, clock) == total
    assert len(count.slices) <= MOST_DAYS + 2 * 24 + 30
    since, until = month_of(clock.today, reset_day)
    right = sum(more for at_s, more in true_s if since * DAY_S <= at_s < until * DAY_S)
    # days that were merged under a wrong clock may lie across the month's beginning
    doubtful = sum(more for at_s, more in true_s if abs(at_s - since * DAY_S) < DAY_S)
    assert abs(count.used(since, until, clock) - right) <= doubtful
    if not any(off_s for _, _, off_s, _ in steps):
        assert count.used(since, until, clock) == right


@given(st.integers(-700_000, 2_900_000), st.integers(1, 31))
def test_a_month_holds_its_day_and_the_next_one_follows(day: int, reset_day: int) -> None:
    since, until = month_of(day, reset_day)
    assert since <= day < until
    assert 28 <= until - since <= 31
    assert month_of(until, reset_day)[0] == until
    assert civil(since)[2] == reset_day or civil(since + 1)[2] == 1

"""The history's file: an hour is the sum of its minutes, however they came."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path as FilePath

from hypothesis import given, settings
from hypothesis import strategies as st

from ifdefault.monitor.history.file import HistoryFile
from ifdefault.monitor.history.reader import history_dir, reading
from ifdefault.monitor.history.records import DAY_S, HOUR_S, MINUTE_S, Batch, Path, Tally
from ifdefault.monitor.history.schema import pack, unpack

T = 1_800_000_000 // DAY_S * DAY_S
PATHS = Path("isp-a", 4), Path("isp-a", 6), Path("isp-b", 4)
TALLIES = st.builds(
    Tally,
    *(st.integers(0, 7200),) * 2,
    st.integers(0, 10**9),
    st.lists(st.integers(0, 7200), max_size=11).map(tuple),
    *(st.integers(0, 60_000),) * 4,
)
# a minute of two days, whose path did something; the clock may be set back at any time
MINUTES = st.tuples(st.integers(0, 2 * 1440), st.sampled_from(PATHS), TALLIES)
WRITES = st.lists(st.lists(MINUTES, min_size=1, max_size=6), min_size=1, max_size=8)


def _plain(tally: Tally) -> Tally:
    """As it comes back: without buckets at the end that are empty."""
    return replace(tally, rtt=unpack(pack(tally.rtt)))


@given(WRITES)
@settings(max_examples=25)
def test_hours_are_the_sums_of_minutes(writes: list[list[tuple[int, Path, Tally]]]) -> None:
    expected: dict[tuple[int, Path], Tally] = defaultdict(Tally)
    with tempfile.TemporaryDirectory() as folder:
        file = HistoryFile(history_dir(FilePath(folder)))
        for write in writes:
            batch = Batch()
            for minute, path, tally in write:
                at = T + minute * MINUTE_S
                batch.add(at, path, tally)
                expected[at - at % HOUR_S, path] += tally
            file.write(batch, T + max(minute for minute, _, _ in write) * MINUTE_S, (), 400 * DAY_S)
        file.close()
        with reading(FilePath(folder)) as reader:
            hours = {(i.at, i.path): i.tally for i in reader.hours(0, T + 3 * DAY_S)}
            minutes = reader.minutes(0, T + 3 * DAY_S)
    assert hours == {key: _plain(tally) for key, tally in expected.items()}
    total = sum((interval.tally for interval in minutes), Tally())
    assert _plain(total) == _plain(sum(expected.values(), Tally()))

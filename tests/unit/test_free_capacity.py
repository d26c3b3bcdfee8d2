"""How much of its weight each uplink has while its line fills up, in simulated time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifdefault.health.free_capacity import CHANGE_S, FULL_AT, RISE_S, FreeCapacity
from ifdefault.model.config import UplinkConfig
from ifdefault.model.health import WHOLE, LinkCounter

MBIT = 10**6
A = UplinkConfig("a", "wan0", capacity=(100 * MBIT, 40 * MBIT))
B = UplinkConfig("b", "wan1", weight=3, capacity=(100 * MBIT, 100 * MBIT))
PLAIN = UplinkConfig("c", "wan2", weight=2)


@dataclass
class Lines:
    """Their counters, read once a second; `changes` has the shares after each that was reported."""

    uplinks: tuple[UplinkConfig, ...] = (A, B, PLAIN)
    free: FreeCapacity = field(default_factory=FreeCapacity)
    now: float = 100.0
    link: int = 1
    bits: dict[str, list[float]] = field(default_factory=dict)
    changes: list[tuple[float, dict[str, int]]] = field(default_factory=list)

    def run(self, seconds: int, **rates: tuple[float, float]) -> Lines:
        """`rates`: Mbit/s in, out."""
        for _ in range(seconds):
            self.now += 1
            for name, rate in rates.items():
                bits = self.bits.setdefault(name, [0, 0])
                bits[:] = [count + MBIT * new for count, new in zip(bits, rate, strict=True)]
            counters = [
                LinkCounter(name, self.link, int(bits_in / 8), int(bits_out / 8))
                for name, (bits_in, bits_out) in self.bits.items()
            ]
            if self.free.count(self.now, self.uplinks, counters):
                self.changes.append((self.now, self.shares))
        return self

    @property
    def shares(self) -> dict[str, int]:
        return dict(self.free.shares(self.uplinks))


def test_a_full_line_keeps_an_eighth_within_ten_seconds_and_gets_all_back() -> None:
    lines = Lines().run(60, a=(99, 2), b=(1, 1))
    assert lines.shares == {"a": 1}
    assert lines.changes[-1][0] - lines.changes[0][0] <= 2 * CHANGE_S
    assert lines.changes[0][0] < 110
    assert [load.full for load in lines.free.reports()] == [True]
    lines.changes.clear()
    lines.run(60, a=(0, 0), b=(1, 1))
    assert [shares.get("a", WHOLE) for _, shares in lines.changes] == [2, 4, WHOLE]
    assert [load.full for load in lines.free.reports()] == [False]
    assert lines.free.reports() == ()


def test_each_direction_has_its_capacity() -> None:
    assert Lines().run(60, a=(30, 39)).shares == {"a": 1}
    assert Lines().run(60, b=(30, 39)).shares == {}
    (load, *_) = Lines().run(60, a=(30, 20)).free.loads((A, B, PLAIN))
    assert (load.direction, load.capacity_bits, round(load.used, 2)) == ("out", 40 * MBIT, 0.5)


def test_lines_that_are_equally_full_have_the_weights_of_the_config() -> None:
    lines = Lines((A, B)).run(60, a=(99, 1), b=(99, 1))
    assert lines.shares == {}
    assert {load.share for load in lines.free.loads((A, B))} == {1}


def test_a_short_peak_changes_nothing() -> None:
    lines = Lines().run(60, a=(20, 1)).run(2, a=(100, 1)).run(60, a=(20, 1))
    assert lines.changes == []


def test_a_share_stays_between_its_thresholds() -> None:
    lines = Lines().run(60, a=(80, 1))
    assert lines.shares == {"a": 4}
    assert lines.run(600, a=(60, 1)).shares == {"a": 4}, "twice as much wouldn't have room"
    assert lines.run(60, a=(30, 1)).shares == {}


def test_an_interface_that_was_created_again_begins_anew() -> None:
    lines = Lines().run(30, a=(99, 1))
    lines.link, lines.bits = 2, {}
    assert lines.run(1, a=(1e6, 1)).shares == {"a": 1}, "its first count is no rate"
    lines.bits = {}  # a counter that was set to 0
    lines.run(30, a=(99, 1))
    assert lines.free.loads((A,))[0].used == pytest.approx(0.99, abs=0.01)


def test_an_interface_that_is_gone_is_not_full() -> None:
    lines = Lines().run(30, a=(99, 1), b=(1, 1))
    lines.changes.clear()
    del lines.bits["a"]
    lines.run(1, b=(1, 1))
    assert [shares for _, shares in lines.changes] == [{}]
    assert [load.uplink for load in lines.free.loads(lines.uplinks)] == ["b"]


def test_what_the_config_no_longer_says_is_forgotten() -> None:
    lines = Lines().run(30, a=(99, 1))
    without = UplinkConfig("a", "wan0")
    assert lines.free.shares((without, B)) == ()
    assert lines.free.loads((without, B)) == ()


utilisation = st.lists(st.tuples(st.floats(0, 1.2), st.integers(1, 60)), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(utilisation, utilisation)
def test_a_share_is_never_nothing_and_changes_seldom(
    of_a: list[tuple[float, int]], of_b: list[tuple[float, int]]
) -> None:
    lines = Lines()
    for (a, seconds), (b, _) in zip(of_a, of_b, strict=False):
        lines.run(seconds, a=(100 * a, 0), b=(0, 100 * b))
    times = [at_s for at_s, _ in lines.changes]
    assert all(1 <= share < WHOLE for _, shares in lines.changes for share in shares.values())
    assert all(b - a >= CHANGE_S for a, b in pairwise(times))


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1.1), st.floats(0, 1.1))
def test_the_fuller_the_line_the_smaller_the_share(one: float, other: float) -> None:
    less, more = sorted((one, other))
    shares = [Lines().run(60, a=(100 * u, 0)).shares.get("a", WHOLE) for u in (less, more)]
    assert shares[0] >= shares[1]


@settings(max_examples=30, deadline=None)
@given(utilisation)
def test_a_steady_load_has_a_steady_share(before: list[tuple[float, int]]) -> None:
    lines = Lines()
    for used, seconds in before:
        lines.run(seconds, a=(100 * used, 0))
    lines.run(1000, a=(60, 0))
    lines.changes.clear()
    assert lines.run(600, a=(60, 0)).changes == []


def offered(rate: float, lasts_s: float, seed: int, lines: Lines) -> Iterator[list[float]]:
    """Connections that arrive at random, last, and go where the weights of that moment lead them:
    what is offered to each line in each second. 200 of them are open at a time."""
    rnd, names = random.Random(seed), [u.name for u in lines.uplinks]
    ends: dict[str, list[float]] = {name: [] for name in names}
    now, due = 0.0, 0.0
    while True:
        now += 1
        weights = [u.weight * lines.shares.get(u.name, WHOLE) for u in lines.uplinks]
        while due < now:
            due += rnd.expovariate(200 / lasts_s)
            name = rnd.choices(names, weights)[0]
            ends[name].append(due + rnd.expovariate(1 / lasts_s))
        for name in names:
            ends[name] = [end for end in ends[name] if end > now]
        yield [len(ends[name]) * rate / 200 for name in names]


SMALL = UplinkConfig("a", "wan0", capacity=(50 * MBIT, 50 * MBIT))
LARGE = UplinkConfig("b", "wan1", capacity=(200 * MBIT, 200 * MBIT))


@pytest.mark.parametrize("lasts_s", [3, 30, 200])
@pytest.mark.parametrize("rate", [90, 150])
def test_connections_that_last_move_away_from_a_full_line_and_it_settles(
    lasts_s: float, rate: float
) -> None:
    """By the config each line would get half: the small one 90 or 150 % of what it carries."""
    lines = Lines((SMALL, LARGE))
    load, used = offered(rate, lasts_s, 1, lines), []
    for _ in range(3600):
        a, b = next(load)
        lines.run(1, a=(min(a, 50), 0), b=(min(b, 200), 0))
        used.append((a / 50, b / 200))
    settled = used[1800:]
    assert sum(a >= FULL_AT[-1] for a, _ in settled) < 0.1 * len(settled)
    assert all(b < 1 for _, b in settled)
    changes = [at_s - 100 for at_s, _ in lines.changes]
    assert 1 <= len(changes) <= 30
    assert sum(at_s > 1800 for at_s in changes) <= 8, "in half an hour"


def test_its_wait_grows_while_it_turns_out_to_be_too_early() -> None:
    """A load that comes back late, as visitors do whose resolvers keep a name."""
    lines = Lines()
    rises = []
    for _ in range(1800):
        before = lines.shares.get("a", WHOLE)
        lines.run(1, a=(99 if before > 2 else 10, 0))
        if lines.shares.get("a", WHOLE) > before:
            rises.append(lines.now)
    waits = [b - a for a, b in pairwise(rises)]
    assert len(rises) < 20
    assert waits[-1] > 8 * RISE_S

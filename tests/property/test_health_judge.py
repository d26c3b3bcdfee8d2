"""The judge on simulated lines, by the bench's own simulator: its leaps are exact, it doesn't cry
wolf, it is quick, and the peers' rules do what the peers are known to do."""

from __future__ import annotations

import math

import pytest

from bench import faults24, judge, judge_peers
from bench.judge_links import (
    BURSTY,
    CASES,
    CLEAN,
    ONE_PERCENT,
    POLICED,
    Bursts,
    Case,
    Dying,
    Independent,
    LossModel,
    Policed,
)
from bench.judge_ours import DAY_S, RTT_S, Run, delay_s, leap, watch
from bench.stats import median, quantile
from ifdefault.model.config import HealthConfig
from ifdefault.model.health import Transition

LOSSY = Case("5 % loss", 0.05)


@pytest.mark.parametrize(
    "case",
    [Case("1 % loss", 0.01), LOSSY, Case("15 % loss", 0.15), POLICED, BURSTY],
    ids=lambda c: c.name,
)
def test_leaps_are_exact(case: Case) -> None:
    """A path that leaps over quiet rounds comes out as one that goes through them all, and so do
    its transitions."""
    found: list[list[Transition]] = []
    runs = []
    for leaps in (False, True):
        run = Run(often(case, 7), leaps=leaps)
        found.append(run.run(DAY_S / 6))
        runs.append(run)
    walked, leapt = runs
    assert [(t.at_s, t.state) for t in found[0]] == [(t.at_s, t.state) for t in found[1]]
    assert walked.asked == leapt.asked
    learned = walked.path.memory().losses
    assert leapt.path.memory().losses == pytest.approx(learned, rel=1e-6, abs=1e-9)
    loss = walked.path.health().loss_ratio
    assert leapt.path.health().loss_ratio == pytest.approx(loss, rel=1e-6, abs=1e-9)


def often(case: Case, seed: int) -> LossModel:
    """The line, with bursts so often that some hours have many."""
    return Bursts(0.2, 20.0, seed) if case.bursts else case.make(seed)


@pytest.mark.parametrize("case", [*CASES, POLICED], ids=lambda c: c.name)
def test_it_does_not_cry_wolf(case: Case) -> None:
    days = 0.1 if case.ratio > 0.1 else 1.0
    assert len(watch(case, days, 11).falls_s) == 0


@pytest.mark.parametrize("case", [CLEAN, Case("1 % loss", 0.01)], ids=lambda c: c.name)
def test_it_is_quick(case: Case) -> None:
    delays = [delay_s(case, seed, seed / 40, rtt_s=0.05) for seed in range(40)]
    assert median(delays) <= 0.8
    assert quantile(delays, 0.95) <= 1.2


def test_many_new_paths_are_policed_and_called_down_by_none() -> None:
    """Nothing is known of them yet."""
    assert sum(len(watch(POLICED, 1 / 144, seed).falls_s) for seed in range(40)) == 0


def test_a_line_that_polices_lets_so_many_through() -> None:
    line = Policed(Independent(0.0, 1))
    assert [line.lost(10.0) for _ in range(7)] == [False] * 5 + [True] * 2
    assert [line.lost(at) for at in (10.1, 10.21, 10.25, 10.42, 12.0)] == [
        True,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("to_s", judge.LEAPS_S)
@pytest.mark.parametrize("case", [CLEAN, ONE_PERCENT, LOSSY], ids=lambda c: c.name)
def test_a_round_trip_that_leaps_is_slow(case: Case, to_s: float) -> None:
    for seed in range(20):
        found = leap(case, seed, seed / 20, to_s)
        assert found.works
        assert found.falls <= 1
        assert found.down_s <= judge.LEAP_DOWN_S


def test_it_is_never_so_patient_as_to_wait_longer_than_three_seconds() -> None:
    memory = watch(Case("bursts", bursts=True), 3, 1).memory
    delays = [delay_s(BURSTY, seed, seed / 20, learned=memory) for seed in range(20)]
    assert max(delays) <= 3.7


def test_the_bound_grows_with_loss_and_is_below_what_we_reach() -> None:
    bounds = [judge.bound_s(case, HealthConfig()) for case in CASES]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(0.25 + RTT_S)
    for case, bound_s in zip(CASES[:3], bounds, strict=False):
        assert median([delay_s(case, seed, seed / 20) for seed in range(20)]) > bound_s


@pytest.mark.parametrize(
    ("rule", "least", "most"),
    # measured on a real line: 15 s and 7.2 s, 0.72 s; computed: 120 s
    [
        (judge_peers.Dpinger(), 14.5, 16.5),
        (judge_peers.Lsm(), 7.0, 9.1),
        (judge_peers.Mwan3(), 115.0, 131.0),
        (judge_peers.Dpinger(0.1, 0.3, 2, 20, 0.1), 0.6, 1.0),
    ],
    ids=lambda value: getattr(value, "peer", ""),
)
def test_peers_as_they_are_known(rule: judge_peers.Rule, least: float, most: float) -> None:
    delays = [judge_peers.delay_s(rule, CLEAN, seed, seed / 10) for seed in range(10)]
    assert least < min(delays)
    assert max(delays) < most
    assert judge_peers.watch(rule, CLEAN, 100, 1).falls == 0


def test_a_peer_that_cries_wolf_and_recovers() -> None:
    rule = judge_peers.Lsm()
    found = judge_peers.watch(rule, LOSSY, 20, 1)
    assert 5 < found.falls < 60
    assert found.per_30_days == found.falls * 1.5
    assert math.isnan(judge_peers.delay_s(judge_peers.Lsm(), Case("half", 0.5), 1, 0.5))


def test_a_dying_line() -> None:
    line = Dying(Independent(0.0, 1), 10.0)
    assert line.spare(0.0, 1.0) == 10
    assert not line.lost(9.99)
    assert line.lost(10.0)


def test_a_day_of_faults_in_short() -> None:
    day = faults24.live(3, seconds=3600.0)
    assert day.deaths > 3
    assert day.fell_alive == 0
    assert max(day.answers_s) <= faults24.ANSWERS_S
    assert max([*day.detected_s, *day.detected_late_s]) <= faults24.DETECTED_LATE_S
    assert all(detected <= faults24.DETECTED_S for detected in day.detected_s)
    assert all(wrong <= faults24.DETECTED_LATE_S for wrong in day.wrong_s)

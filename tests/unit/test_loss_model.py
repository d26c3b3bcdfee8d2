"""The loss model: what it learns, and the weight of a run."""

from __future__ import annotations

import math

import pytest

from ifdefault.health.loss_model import FIRST_LEAST, NEXT_LEAST, NEXT_MOST, LossModel, threshold


def rounds_to(line: LossModel, limit: float) -> int:
    """The number of losses in a row to be declared down."""
    total, losses = 0.0, 0
    while total < limit:
        total += line.weight(losses)
        losses += 1
    return losses


def test_the_threshold_is_the_time_between_false_alarms() -> None:
    assert threshold(60, 2) == pytest.approx(math.log(60 * 86400 * 2))
    assert threshold(0.001, 2) == 6


def test_a_new_line_and_a_clean_one_are_judged_quickly() -> None:
    line = LossModel()
    assert rounds_to(line, threshold(60, 2)) == 7
    for _ in range(100_000):
        line.record_answers()
    assert line.first == FIRST_LEAST
    assert rounds_to(line, threshold(60, 2)) == 7


def test_independent_loss_is_learned() -> None:
    line = LossModel()
    for at in range(4000):
        for _ in range(4):
            line.record_answers()
        line.record_run(at, 2 if at % 5 == 0 else 1)  # a fifth of all rounds, also in bursts
    assert line.first == pytest.approx(0.2, rel=0.05)
    assert math.exp(-line.weight(1)) == pytest.approx(0.2, rel=0.05)
    assert 10 <= rounds_to(line, threshold(60, 2)) <= 12


def test_a_few_bursts_make_it_patient() -> None:
    line, limit = LossModel(), threshold(60, 2)
    assert rounds_to(line, limit) == 7
    for at, losses in enumerate((1, 4, 2, 7, 3)):
        line.record_run(at, losses)
    assert rounds_to(line, limit) >= 14


def test_single_losses_do_not_hide_bursts() -> None:
    """A mixture: many losses of one round, few of ten. The second loss still has a high weight,
    those after it a low one."""
    line = LossModel()
    for at in range(5000):
        for _ in range(20):
            line.record_answers()
        line.record_run(at, 10 if at % 50 == 0 else 1)
    assert math.exp(-line.weight(1)) == NEXT_LEAST
    assert math.exp(-line.weight(2)) == pytest.approx(NEXT_MOST)
    assert math.exp(-line.weight(6)) == pytest.approx(NEXT_MOST)


def test_bursts_are_forgotten() -> None:
    line = LossModel()
    for at in range(20):
        line.record_answers(100)
        line.record_run(at, 8)
    assert rounds_to(line, threshold(60, 2)) >= 14
    line.record_run(60 * 86400.0, 1)
    assert rounds_to(line, threshold(60, 2)) <= 9


def test_what_is_learned_can_be_handed_on() -> None:
    line = LossModel()
    for at in range(50):
        line.record_answers()
        line.record_run(at, at % 7 + 1)
    other = LossModel(line.learned())
    assert other.learned() == line.learned()
    assert [other.weight(nth) for nth in range(50)] == [line.weight(nth) for nth in range(50)]


@pytest.mark.parametrize("learned", [(1.0,), (math.nan,) * 17, (-1.0,) * 17, (math.inf,) * 17])
def test_rubbish_is_not_learned(learned: tuple[float, ...]) -> None:
    assert LossModel(learned).learned() == LossModel().learned()

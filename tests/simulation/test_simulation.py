"""A short simulation, and a check that it finds planted bugs. `./dev simulate` runs long ones."""

from __future__ import annotations

import pytest

from tests.simulation.planted import PLANTED, Planted
from tests.simulation.simulation import Hour, live

SEED = 1
HOURS = 3
REPLAYED_S = 900.0


def told(hour: Hour) -> str:
    return "\n".join((*hour.last, f"seed {hour.seed}, hour {hour.number}: {hour.violation}"))


@pytest.mark.parametrize("number", range(1, 1 + HOURS))
def test_all_holds(number: int) -> None:
    hour = live(SEED, number)
    assert not hour.violation, told(hour)
    assert hour.counts["converges"]
    assert hour.counts["leaps"]


def test_all_holds_without_leaps() -> None:
    hour = live(SEED, 0, 300.0)
    assert not hour.violation, told(hour)
    assert not hour.counts["leaps"]


def test_one_seed_gives_one_trace() -> None:
    first, second = (live(SEED, 5, REPLAYED_S) for _ in range(2))
    assert first == second
    assert live(SEED, 6, REPLAYED_S).digest != first.digest


@pytest.mark.parametrize(
    "planted", PLANTED.values(), ids=[name.replace(" ", "-") for name in PLANTED]
)
def test_finds_what_is_planted(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.plant(monkeypatch)
    first = planted.first
    hours = (live(SEED, number) for number in range(first, first + planted.hours))
    found = next((hour for hour in hours if hour.violation), None)
    assert found, f"not found in {planted.hours} hours"
    assert found.violation.startswith(planted.finders), told(found)
    monkeypatch.undo()
    assert not live(SEED, found.number, found.at_s + 1.0).violation

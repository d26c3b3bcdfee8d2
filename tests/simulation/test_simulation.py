"""A short simulation, and a check that it finds planted bugs. `./dev simulate` runs long ones."""

from __future__ import annotations

from collections import Counter

import pytest

from ifdefault.daemon.record import Redactor
from ifdefault.daemon.snapshot import Restorer, Snapshot
from ifdefault.ipc import codec
from tests.simulation.daemon import Daemon
from tests.simulation.planted import PLANTED, Planted
from tests.simulation.simulation import Hour, live

SEED = 1
HOURS = 3
REPLAYED_S = 900.0
COPIED = 97  # turns from one copy to the next


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


def test_a_restored_controller_goes_on_as_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """At any time a record may begin with the controller's state (`daemon.snapshot`)."""
    first, turn, copies = live(SEED, 5, REPLAYED_S), Daemon.turn, Counter[str]()

    def turn_of_a_copy(daemon: Daemon) -> None:
        copies["turns"] += 1
        if daemon.controller is not None and copies["turns"] % COPIED == 0:
            restorer = Restorer()
            restorer.add(
                map(codec.read, map(codec.write, Snapshot(daemon.controller).nodes(Redactor())))
            )
            daemon.controller = restorer.controller()
            copies["made"] += 1
        turn(daemon)

    monkeypatch.setattr(Daemon, "turn", turn_of_a_copy)
    assert live(SEED, 5, REPLAYED_S) == first
    assert copies["made"] > 10


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

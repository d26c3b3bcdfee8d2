"""The outcome of a record of chaos: what was wrong or late, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from bench.chaos_outcome import FaultPeriod, Record, State, Stream, false_alarms, figures
from bench.observer import Observation

DEVICES = {"isp-a": "wan0", "isp-b": "wan1"}


def record() -> Record:
    """isp-a is dead from 100 to 110, is left after 0.5 s, and is up again after 3 s."""
    said = ((90.5, "up", 80.0), (101.0, "down", 100.5), (111.0, "recovering", 110.5))
    return Record(
        devices=DEVICES,
        faults=[FaultPeriod("isp-a", "blackhole", 100.0, 110.0)],
        states=[
            *(State(at_s, "isp-a", 4, state, since_s, "") for at_s, state, since_s in said),
            State(113.5, "isp-a", 4, "up", 113.0, ""),
        ],
        streams=[Stream("203.0.113.10", "isp-a", 1000, (99.5, 105.0, 110.9))],
        defaults={
            "far": [Observation(80, "wan0"), Observation(100.5, "wan1"), Observation(113.0, "wan0")]
        },
    )


def measured(found: Record) -> dict[str, float]:
    return {figure.what: figure.value for figure in figures(found)}


def missed(found: Record) -> list[str]:
    return [figure.what for figure in figures(found) if figure.met is False]


def test_a_failover_in_time_contradicts_nothing() -> None:
    assert missed(record()) == []
    assert measured(record())["default left, clean links: median"] == 0.5
    assert measured(record())["up again after a fault (damped): median"] == 3.0
    assert measured(record())["dead uplink called up or degraded, longest"] == 0.0


def test_a_dead_uplink_that_keeps_the_default_is_late() -> None:
    late = record()
    late.defaults["far"][1] = Observation(101.5, "wan1")
    assert "default left, clean links: longest" in missed(late)
    never = record()
    never.defaults["far"][1:] = []
    assert measured(never)["default left, clean links: longest"] == 10.0


def test_one_that_was_lossy_before_is_counted_apart() -> None:
    late = record()
    late.defaults["far"][1] = Observation(101.5, "wan1")
    late.faults.append(FaultPeriod("isp-a", "loss", 70.0, 85.0))
    assert "default left, clean links: longest" not in missed(late)
    assert measured(late)["default left, all: longest"] == 1.5
    assert measured(late)["default left, clean links: times"] == 0


def test_without_another_uplink_nothing_is_late() -> None:
    alone = record()
    alone.defaults["far"][1:] = []
    alone.faults.append(FaultPeriod("isp-b", "gateway", 90.0, 99.0))
    assert measured(alone)["default left, all: times"] == 0


def test_a_move_to_a_dead_uplink_is_found() -> None:
    back = record()
    back.defaults["far"].insert(2, Observation(105.0, "wan0"))
    assert missed(back) == ["default moved to a dead uplink"]


def test_a_false_alarm_is_found_and_one_with_a_cause_is_not() -> None:
    alarmed = record()
    alarmed.states.append(State(130.0, "isp-b", 4, "down", 129.0, "no reason"))
    assert [state.cause for state in false_alarms(alarmed)] == ["no reason"]
    alarmed.faults.append(FaultPeriod("isp-b", "loss", 120.0, 128.5))
    assert missed(alarmed) == []
    assert measured(alarmed)["impaired uplinks (loss, bursts, delay) called down"] == 1


def test_a_packet_lost_by_an_untouched_uplink_is_found() -> None:
    lossy = record()
    lossy.streams.append(Stream("198.51.100.10", "isp-b", 1000, (105.0,)))
    assert missed(lossy) == ["packets to uplinks without a fault: lost"]
    lossy.streams[-1] = replace(lossy.streams[-1], provider="isp-a")
    assert missed(lossy) == []

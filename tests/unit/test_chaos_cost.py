"""What faults of the host may cost, and what the verdict doesn't excuse."""

from __future__ import annotations

from dataclasses import replace

from bench import chaos_cost, chaos_outcome
from bench.chaos_host import HostPeriod, Resources
from bench.chaos_outcome import FaultPeriod, Record, State, Stream, failovers, false_alarms
from bench.observer import Observation
from bench.round_trips import RoundTrip, RoundTrips
from bench.tcp_streams import TcpStream

DEVICES = {"isp-a": "wan0", "isp-b": "wan1"}


def record(*host: HostPeriod, left_s: float = 100.5) -> Record:
    """isp-a, the primary, is dead from 100 to 110."""
    return Record(
        devices=DEVICES,
        faults=[FaultPeriod("isp-a", "blackhole", 100.0, 110.0)],
        states=[State(90.0, "isp-b", 4, "up", 80.0, "")],
        defaults={"far": [Observation(80, "wan0"), Observation(left_s, "wan1")]},
        host=list(host),
    )


def missed(found: Record) -> list[str]:
    figures = (*chaos_outcome.figures(found), *chaos_cost.figures(found))
    return [figure.what for figure in figures if figure.met is False]


def test_while_the_daemon_is_absent_it_decides_nothing() -> None:
    restart = HostPeriod("restart", 99.0, 103.0)
    (move,) = failovers(record(restart, left_s=103.5))
    assert (move.took_s, move.during, move.group) == (0.5, "restart", "absent")
    assert missed(record(restart, left_s=103.5)) == []


def test_what_is_late_after_its_return_is_late() -> None:
    late = record(HostPeriod("kill -9", 99.0, 103.0), left_s=104.5)
    assert missed(late) == ["default left after the daemon's return: longest"]


def test_it_may_be_absent_again_before_it_can_decide() -> None:
    twice = [HostPeriod("restart", 99.0, 100.2), HostPeriod("freeze", 100.8, 104.0)]
    (move,) = failovers(record(*twice, left_s=104.3))
    assert round(move.took_s, 3) == 0.3


def test_a_storm_excuses_a_tenth_of_a_second() -> None:
    storm = HostPeriod("route storm", 95.0, 105.0)
    assert missed(record(storm, left_s=101.25)) == []
    assert missed(record(storm, left_s=101.35)) == ["default left, clean links, storms: longest"]


def test_no_storm_excuses_a_false_alarm() -> None:
    alarmed = record(HostPeriod("hostile user", 120.0, 140.0))
    alarmed.downs.append(State(130.0, "isp-b", 4, "down", 130.0, "no reason"))
    assert [state.cause for state in false_alarms(alarmed)] == ["no reason"]
    assert missed(alarmed) == ["false alarms"]


def test_a_down_of_an_intact_uplink_after_a_restart_is_a_false_alarm() -> None:
    back = record(HostPeriod("upgrade", 120.0, 123.0))
    back.downs.append(State(123.4, "isp-b", 4, "down", 123.4, ""))
    assert missed(back) == ["false alarms"]
    back.faults.append(FaultPeriod("isp-b", "blackhole", 119.0, 122.0))  # judged late
    assert missed(back) == []


def test_a_down_that_was_read_twice_is_one() -> None:
    alarmed = record()
    alarmed.states.append(State(130.2, "isp-b", 4, "down", 130.0, ""))
    alarmed.downs.append(State(130.1, "isp-b", 4, "down", 130.1, ""))
    assert len(list(false_alarms(alarmed))) == 1


def test_a_query_lost_by_an_intact_uplink_is_found() -> None:
    lossy = record(HostPeriod("kill -9", 120.0, 122.0))
    lossy.queries.append(Stream("isp-a", "isp-a", 100, (105.0,)))
    assert missed(lossy) == []
    lossy.queries.append(Stream("isp-b", "isp-b", 100, (121.0,)))
    assert missed(lossy) == ["DNS queries to uplinks without a fault: lost"]


def test_established_connections_survive() -> None:
    stream = TcpStream("198.51.100.10", 100, broken=[(121.0, "reset")])
    broken = record(HostPeriod("flush", 120.0, 125.0))
    broken.connections.append(("isp-b", stream))
    assert missed(broken) == ["established connections over uplinks without a fault: broken"]
    broken.connections[0] = ("isp-b", replace(stream, broken=[], late=[121.0]))
    assert missed(broken) == ["established connections over uplinks without a fault: messages late"]
    broken.connections[0] = ("isp-a", replace(stream, broken=[], late=[121.0]))  # backs off
    assert missed(broken) == []


def test_pauses_while_it_is_absent_are_none() -> None:
    paused = record(HostPeriod("freeze", 120.0, 123.0))
    trips = (RoundTrip(120.1, 3.0, 0.0), RoundTrip(130.0, 0.5, 0.3))
    paused.round_trips = RoundTrips(1000, 0.001, trips)
    assert chaos_cost.longest_pause_s(paused) == 0.2


def test_memory_and_log_are_bounded() -> None:
    grown = record()
    grown.resources = [
        Resources(100.0, {"engine": 50.0, "DNS server": 20.0}, 0),
        Resources(160.0, {"engine": 75.0, "DNS server": 20.0}, 1 << 20),
    ]
    assert missed(grown) == ["daemon, memory in the end: more", "daemon, log"]


def test_check_must_be_content() -> None:
    wrong = record()
    wrong.faults_of_check = ["wan0: a rule is missing"]
    assert missed(wrong) == ["`check` finds faults in the end"]

"""A path's life, step by step: each test tells one thing that happens to it, on a clock of its own.

`World` stands for the engine, the frontend and the Internet: it sends what the path asks for, and
lets each probe be answered after `rtt_s`, lost, or whatever else `fate` says.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from ifdefault.health import Memory, Path
from ifdefault.health.contradiction import SERVED
from ifdefault.model.config import HealthConfig
from ifdefault.model.health import GATEWAY, Ask, PathState, Transition, Verdict
from ifdefault.model.report import DECIDE_BUCKETS_S, RTT_BUCKETS_S

TARGETS = ("icmp://192.0.2.1", "icmp://192.0.2.2", "icmp://192.0.2.3", "icmp://192.0.2.4")
Fate = Callable[
    [float, Ask], float | Verdict
]  # seconds until it is answered, or what becomes of it


class World:
    def __init__(
        self,
        targets: tuple[str, ...] = TARGETS,
        config: HealthConfig | None = None,
        *,
        rtt_s: float = 0.02,
        memory: Memory | None = None,
        presumed: PathState = "unproven",
        has_gateway: bool = True,
        now: float = 1000.0,
    ) -> None:
        self.now = now
        self.rtt_s = rtt_s
        self.dead: set[int] = set()  # targets that don't answer
        self.fate: Fate = lambda _now, ask: "lost" if ask.target in self.dead else self.rtt_s
        self.asked: list[tuple[float, int]] = []
        self.seen: list[Transition] = []
        self._events: list[tuple[float, int, Verdict, int]] = []
        config = config or HealthConfig()
        self.path = Path("a", 4, targets, config, now, memory, presumed, has_gateway)

    def run(self, seconds: float) -> list[Transition]:
        """Let time pass, and tell what changed meanwhile."""
        until, before = self.now + seconds, len(self.seen)
        while True:
            wake_s = max(self.path.wake_s, self.now)
            if self._events and self._events[0][0] <= min(wake_s, until):
                self.now, seq, verdict, rtt_us = heapq.heappop(self._events)
                self.seen += self.path.observe(self.now, seq, verdict, rtt_us)
            elif wake_s <= until:
                self.now = wake_s
                for ask in self.path.asks(self.now):
                    self.asked.append((self.now, ask.target))
                    self._send(ask)
                self.seen += self.path.tick(self.now)
            else:
                self.now = until
                return self.seen[before:]

    def _send(self, ask: Ask) -> None:
        fate = self.fate(self.now, ask)
        if isinstance(fate, str):
            if fate != "local":
                at = self.now + ask.timeout_s
                heapq.heappush(self._events, (at, ask.seq, fate, 0))
            else:
                heapq.heappush(self._events, (self.now, ask.seq, fate, 0))
            return
        if fate > ask.timeout_s:  # late
            heapq.heappush(self._events, (self.now + ask.timeout_s, ask.seq, "lost", 0))
        heapq.heappush(self._events, (self.now + fate, ask.seq, "answered", int(fate * 1e6)))

    def black_out(self, gateway: bool = False) -> None:
        self.dead = {*range(len(TARGETS)), *([GATEWAY] if gateway else [])}

    def heal(self) -> None:
        self.dead = set()

    @property
    def state(self) -> PathState:
        return self.path.health().state

    def rounds(self, since: float) -> list[float]:
        return [at for at, target in self.asked if at >= since and target != GATEWAY]


def up(**more: object) -> World:
    world = World(**more)  # type: ignore[arg-type]
    world.run(30)
    assert world.state == "up"
    return world


def states(steps: list[Transition]) -> list[PathState]:
    return [step.state for step in steps]


# --- up, and quiet ------------------------------------------------------------------------


def test_the_first_answer_brings_it_up() -> None:
    world = World()
    assert world.state == "unproven"
    (step,) = world.run(0.1)
    assert str(step) == f"a IPv4: unproven -> up ({TARGETS[0]} answers)"
    assert [t.answered for t in world.path.health().targets] == [1, 1, 1, 1]


def test_quiet_rounds_keep_their_rate() -> None:
    world = up()
    start = world.now
    world.run(100)
    assert 190 <= len(world.rounds(start)) <= 201
    gateway = [at for at, target in world.asked if at >= start and target == GATEWAY]
    assert 18 <= len(gateway) <= 21


def test_traffic_saves_rounds_and_never_two_in_a_row() -> None:
    world = up()
    start = world.now
    for _ in range(100):
        world.path.confirm(world.now)
        world.run(1.0)
    rounds = world.rounds(start)
    assert 95 <= len(rounds) <= 110
    assert max(b - a for a, b in pairwise(rounds)) <= 1.01


# --- down ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rtt_s", [0.001, 0.02, 0.05])
def test_a_black_hole_is_noticed(rtt_s: float) -> None:
    world = up(rtt_s=rtt_s)
    world.black_out()
    died = world.now
    (step,) = world.run(1.0)
    assert step.state == "down"
    assert step.at_s - died <= 0.95
    assert step.cause.endswith("rounds lost in 420 ms, the gateway answers")
    assert world.path.health().gateway == "answers"
    assert world.path.health().loss_ratio == 1.0


def test_the_cause_tells_of_the_gateway() -> None:
    world = up()
    world.black_out(gateway=True)
    (step,) = world.run(1.0)
    assert step.cause.endswith(", the gateway is silent too")
    world.run(5)
    assert world.path.health().gateway == "silent"


def test_a_gateway_that_never_answers_is_not_mentioned() -> None:
    world = World()
    world.dead = {GATEWAY}
    world.run(30)
    world.black_out(gateway=True)
    (step,) = world.run(1.0)
    assert step.cause.endswith(" ms")
    assert world.path.health().gateway == "unknown"


def test_a_lost_carrier_decides_at_once() -> None:
    world = up()
    (step,) = world.path.link(world.now, False)
    assert (step.state, step.cause) == ("down", "carrier lost")
    before = len(world.asked)
    assert world.run(60) == []
    assert len(world.asked) == before


def test_the_cause_is_the_present_one() -> None:
    world = up()
    world.path.link(world.now, False, "interface wan0 is down")
    since_s = world.path.since_s
    world.run(3)
    assert world.path.link(world.now, False, "no IPv4 default route on wan0") == ()
    assert world.path.health().cause == "no IPv4 default route on wan0"
    assert world.path.memory().cause == "no answers since the link is back"
    world.black_out()
    assert world.path.link(world.now, True) == ()
    assert world.path.health().cause == "no answers since the link is back"
    assert world.path.since_s == since_s
    world.heal()
    assert [step.state for step in world.run(10)] == ["recovering", "up"]


def test_a_lost_carrier_is_the_cause_of_a_path_that_was_down_before() -> None:
    world = up()
    world.black_out()
    [step] = world.run(5)
    assert " rounds lost in " in step.cause
    assert world.path.link(world.now, False) == ()
    assert world.path.health().cause == "carrier lost"


def test_short_bursts_of_loss_are_borne() -> None:
    world = up()
    for _ in range(20):
        world.black_out()
        assert world.run(0.3) == []
        world.heal()
        assert world.run(9.7) == []


def test_the_gateway_alone_never_brings_down_a_path_with_targets() -> None:
    world = up()
    world.dead = {GATEWAY}
    assert world.run(300) == []
    assert world.path.neighbour(world.now, False) == ()
    assert world.path.health().bursting
    assert world.path.health().gateway == "silent"
    assert world.run(10) == []


def test_delay_that_jumps_is_not_loss() -> None:
    world = up(rtt_s=0.02)
    world.rtt_s = 0.25
    assert world.run(60) == []
    world.rtt_s = 0.02
    assert world.run(60) == []
    world.rtt_s = 0.4
    assert world.run(60) == []


def test_late_answers_are_no_losses_to_learn_from() -> None:
    world = up(rtt_s=0.02)
    before = world.path.memory().losses
    world.rtt_s = 0.2
    world.run(1)
    assert sum(target.lost for target in world.path.health().targets) > 1
    world.run(60)
    after = world.path.memory().losses
    assert after[0] < before[0]
    assert after[5:] == before[5:]


@pytest.mark.parametrize("rtt_s", [0.45, 0.7, 1.2, 2.0, 2.8])
def test_a_round_trip_that_leaps_is_one_false_alarm_at_most(rtt_s: float) -> None:
    """Late answers teach it, so that the path is slow from then on, not dead."""
    world = up(rtt_s=0.02)
    world.rtt_s = rtt_s
    down, recovering, healed = world.run(300)
    assert states([down, recovering, healed]) == ["down", "recovering", "up"]
    assert healed.at_s - down.at_s <= max(3.0, 2 * rtt_s)
    health = world.path.health()
    assert (health.state, health.loss_ratio) == ("up", 0)
    start = world.now
    world.run(30)
    assert len(world.rounds(start)) <= 61, "no burst, as nothing is lost"
    # it leaps back, and once more
    world.rtt_s = 0.02
    assert world.run(60) == []
    world.rtt_s = min(rtt_s, 1.2)
    assert world.run(60) == []


def test_a_slow_path_that_dies_is_noticed() -> None:
    world = up(rtt_s=0.02)
    world.rtt_s = 1.2
    world.run(60)
    world.black_out()
    died = world.now
    (step,) = world.run(10)
    assert step.at_s - died < 5


def test_one_slow_answer_makes_no_path_slow() -> None:
    world = up(rtt_s=0.02)
    world.rtt_s = 0.9
    world.run(0.5)
    world.rtt_s = 0.02
    world.run(60)
    world.black_out()
    died = world.now
    (step,) = world.run(3)
    assert step.at_s - died < 2


def test_what_waited_for_a_dead_gateway_tells_nothing_of_delay() -> None:
    """Probes are queued while its MAC is resolved, once a second, and all answered at once."""
    world = up(rtt_s=0.02)
    world.run(300)
    back_s = world.now + 30.0
    world.fate = lambda now, _: "lost" if now < back_s - 1.5 else max(0.02, back_s - now)
    world.run(60)
    assert world.seen[-1].state == "up"
    world.fate = lambda _now, _ask: "lost"
    died = world.now
    (step,) = world.run(5)
    assert step.at_s - died < 1.0


def test_a_slow_line_is_given_its_time() -> None:
    world = up(rtt_s=0.6)
    assert world.run(300) == []
    world.black_out()
    died = world.now
    (step,) = world.run(5)
    assert 0.7 < step.at_s - died < 3


# --- suspicion that comes to nothing ------------------------------------------------------


def test_local_errors_mean_nothing() -> None:
    world = up()
    world.fate = lambda _now, _ask: "local"
    assert world.run(600) == []


def test_a_silent_frontend_means_nothing() -> None:
    world = up()
    start = world.now
    while world.now < start + 60:
        world.now = world.path.wake_s
        world.path.asks(world.now)
        assert world.path.tick(world.now) == ()


def test_a_suspicion_starts_a_burst_that_an_answer_ends() -> None:
    world = up()
    world.run(0.1)
    start = world.now
    world.path.suspect(start, "sockets stall")
    assert world.path.health().bursting
    assert world.run(1) == []
    assert not world.path.health().bursting
    first, second, *_ = world.rounds(start)
    assert second - first >= 0.5


def test_one_cause_is_suspected_once_in_a_while() -> None:
    world = up()
    start = world.now
    for _ in range(100):
        world.path.suspect(world.now, "half-open connections")
        world.run(0.1)
    assert len(world.rounds(start)) <= 25


def test_a_suspicion_makes_it_quicker() -> None:
    world = up()
    world.run(0.1)
    world.black_out()
    died = world.now
    world.path.suspect(died, "sockets stall")
    (step,) = world.run(1)
    assert step.at_s - died <= 0.45


def test_traffic_clears() -> None:
    world = up()
    world.black_out()
    for _ in range(300):
        world.run(0.2)
        assert world.path.confirm(world.now) == ()
    assert world.state in ("up", "degraded")


def test_traffic_of_before_does_not_clear() -> None:
    world = up()
    died = world.now
    world.black_out()
    world.run(0.5)
    world.path.confirm(world.now, at_s=died)
    (step,) = world.run(0.5)
    assert step.state == "down"
    world.run(0.5)
    assert world.path.confirm(world.now, at_s=step.at_s) == ()


def test_what_is_told_too_late_means_nothing() -> None:
    """The frontend was delayed: it reports losses a second late."""
    world = up()
    for _ in range(30):
        world.now = max(world.now, world.path.wake_s)
        for ask in world.path.asks(world.now):
            told_s = world.now + ask.timeout_s + 1.01
            assert world.path.observe(told_s, ask.seq, "lost") == ()
            world.now = told_s
    assert not world.path.health().bursting


def test_a_burst_of_which_nothing_is_heard_comes_to_an_end() -> None:
    world = up()
    world.black_out()
    world.run(0.7)
    assert world.path.health().bursting
    world.fate = lambda _now, _ask: "local"
    assert world.run(6) == []
    start = world.now
    world.run(10)
    assert len(world.rounds(start)) <= 21


@pytest.mark.parametrize("asleep_s", [3, 60])
def test_a_machine_that_slept_in_the_middle_of_a_burst(asleep_s: float) -> None:
    world = up()
    world.black_out()
    world.run(0.8)  # all but decided
    assert world.state == "up"
    world.now += asleep_s
    assert world.path.tick(world.now) == ()
    assert world.run(0.3) == []
    world.heal()
    assert world.run(30) == []


def test_nobody_called_for_a_while() -> None:
    world = up()
    world.path.asks(world.path.wake_s)  # they go out, and the machine sleeps
    world.now += 3600
    world.asked.clear()
    assert world.path.tick(world.now) == ()
    assert world.run(30) == []
    assert len(world.asked) <= 70


# --- targets ------------------------------------------------------------------------------


def test_a_target_that_never_answered_is_not_held_against_the_path() -> None:
    world = World()
    world.dead = {0, 2}
    assert states(world.run(300)) == ["up"]
    assert [t.note for t in world.path.health().targets] == [
        "never answered",
        "",
        "never answered",
        "",
    ]
    assert world.path.health().loss_ratio == 0
    asked = [at for at, target in world.asked if target == 0 and at > 1100]
    assert len(asked) <= 21


def test_a_target_that_falls_silent_is_set_aside_and_taken_back() -> None:
    world = up()
    world.dead = {1}
    assert world.run(60) == []
    note = world.path.health().targets[1].note
    assert note.startswith("silent for ")
    assert note.endswith(" s, set aside")
    start = world.now
    world.run(100)
    assert len([at for at, target in world.asked if target == 1 and at > start]) <= 11
    world.heal()
    world.run(11)
    assert world.path.health().targets[1].note == ""


def test_good_targets_that_fall_silent_together_are_the_path() -> None:
    world = up()
    world.dead = {0, 1}
    world.run(60)
    world.dead = {0, 1, 2, 3}
    assert states(world.run(2.5)) == ["down"]


def test_an_unexpected_answer_counts_as_lost_and_is_noted() -> None:
    world = up()
    world.fate = lambda _now, ask: "wrong" if ask.target == 3 else 0.02
    assert world.run(60) == []
    assert world.path.health().targets[3].note == "answers, but not as expected"


def test_nothing_ever_answered() -> None:
    world = World()
    world.black_out()
    assert world.run(3600) == []
    assert world.state == "unproven"
    assert len(world.asked) < 3600 * 2 * 1.5


def test_a_carrier_that_comes_back_where_nothing_ever_answered() -> None:
    world = World()
    world.black_out()
    world.run(10)
    assert states([*world.path.link(world.now, False)]) == ["down"]
    assert states([*world.path.link(world.now, True)]) == ["unproven"]


# --- without targets ----------------------------------------------------------------------


def test_without_targets_the_gateway_decides() -> None:
    world = World(())
    assert states(world.run(30)) == ["up"]
    world.dead = {GATEWAY}
    (step,) = world.run(6)  # it is asked twice a second at most, since it may police its answers
    assert step.state == "down"
    world.heal()
    assert states(world.run(5)) == ["recovering", "up"]


def test_without_targets_its_neighbour_entry_decides_too() -> None:
    world = World(())
    world.dead = {GATEWAY}  # it drops pings
    assert world.run(30) == []
    assert states([*world.path.neighbour(world.now, True)]) == ["up"]
    assert world.run(30) == []
    (step,) = world.path.neighbour(world.now, False)
    assert (step.state, step.cause) == ("down", "gateway unreachable")
    assert states([*world.path.neighbour(world.now, True)]) == ["recovering"]
    assert states(world.run(5)) == ["up"]


def test_nothing_to_ask_at_all() -> None:
    world = World((), has_gateway=False)
    assert world.run(100) == []
    assert world.asked == []
    assert states([*world.path.confirm(world.now)]) == ["up"]


# --- recovery -----------------------------------------------------------------------------


def fail(world: World, for_s: float = 10.0) -> None:
    world.black_out()
    world.run(for_s)
    assert world.state == "down"
    world.heal()


def test_recovery_takes_two_to_five_seconds() -> None:
    world = up()
    fail(world)
    start = world.now
    recovering, healed = world.run(10)
    assert (recovering.state, healed.state) == ("recovering", "up")
    assert 2 <= healed.at_s - start <= 5
    assert healed.cause == "answers for 2.5 s"


def test_recovery_of_the_carrier_too() -> None:
    world = up()
    world.path.link(world.now, False)
    world.run(60)
    world.path.link(world.now, True)
    start = world.now
    assert states(world.run(10)) == ["recovering", "up"]
    assert 2 <= world.seen[-1].at_s - start <= 5


def serve(world: World, seconds: float, every_s: float = 0.3) -> list[Transition]:
    """Connections progress, and somebody looks every 0.3 s."""
    before, until = len(world.seen), world.now + seconds
    while world.now < until:
        world.run(every_s)
        world.seen += world.path.confirm(world.now, world.now - 0.3)
    return world.seen[before:]


def test_silence_that_connections_contradict_is_shown() -> None:
    """The path is degraded as long as they progress, and not probed in bursts."""
    world = up()
    world.black_out()
    (step,) = serve(world, 60)
    assert (step.state, step.cause) == ("degraded", "probes unanswered, but clients are served")
    start = world.now
    assert serve(world, 60) == []
    health = world.path.health()
    assert (health.cause, health.loss_ratio, health.bursting) == (SERVED, 1.0, False)
    assert len(world.rounds(start)) <= 60 / 0.25 + 20
    world.heal()
    (step,) = serve(world, 1)
    assert step.state == "up"
    assert world.path.health().cause != SERVED


def test_when_its_connections_stall_too_the_path_is_down() -> None:
    world = up()
    world.black_out()
    serve(world, 60)
    stalled = world.now
    (step,) = world.run(10)
    assert step.state == "down"
    assert step.at_s - stalled <= 3.0


def test_connections_bring_a_silent_path_back() -> None:
    """It is degraded when the hold is over, as connections progress now and then."""
    world = up()
    world.black_out()
    world.run(10)
    steps = serve(world, 30, every_s=1.0)
    assert states(steps) == ["recovering", "degraded"]
    assert steps[1].cause == SERVED


def test_what_connections_did_before_is_no_contradiction() -> None:
    """They progressed until the path died."""
    world = up()
    serve(world, 10)
    world.black_out()
    died = world.now
    world.run(0.1)
    world.path.confirm(world.now, world.now - 0.3)
    (step,) = world.run(2)
    assert step.state == "down"
    assert step.at_s - died <= 1.1
    assert world.path.confirm(world.now, died) == ()


def test_a_path_that_flaps_is_held_longer_each_time() -> None:
    world = up()
    holds = []
    for _ in range(7):
        fail(world, 5)
        recovering, healed = world.run(70)
        holds.append(round(healed.at_s - recovering.at_s, 6))
    assert holds == [2.5, 5, 10, 20, 40, 60, 60]
    world.run(700)
    fail(world)
    recovering, healed = world.run(10)
    assert healed.at_s - recovering.at_s == pytest.approx(2.5)


@pytest.mark.parametrize("up_s", [0.0, 5.0, 300.0])
def test_short_times_up_make_it_forget_nothing(up_s: float) -> None:
    """Holds may be longer than the time in which failures count."""
    world = up(config=HealthConfig(damp_s=3600))
    holds = []
    for _ in range(9):
        fail(world, 5)
        while world.state != "up":
            world.run(1)
        holds.append(round(world.seen[-1].at_s - world.seen[-2].at_s))
        world.run(up_s)
    assert holds[4:] == sorted(holds[4:])
    assert holds[-1] == (640 if up_s < 10 else holds[2])


def test_failures_while_it_recovers_are_damped() -> None:
    """It must answer to what was sent since, and for longer each time."""
    world = up()
    fail(world, 5)
    for _ in range(3):
        while world.state != "recovering":
            world.run(0.1)
        fail(world, 3)
    start = world.now
    world.run(60)
    assert world.seen[-1].state == "up"
    assert world.seen[-1].at_s - start >= 20


def test_what_it_loses_while_it_recovers_is_learned() -> None:
    world = up(config=HealthConfig(recover_s=300, damp_s=300))
    fail(world)
    before = world.path.memory().losses[0]
    count = iter(range(10**6))
    world.fate = lambda _now, _ask: "lost" if next(count) % 4 == 0 else 0.02
    world.run(200)
    assert world.state == "recovering"
    assert world.path.memory().losses[0] > 5 * before


def test_a_hold_of_no_time_does_not_spin() -> None:
    world = up(config=HealthConfig(recover_s=0, damp_s=0))
    fail(world)
    world.black_out()
    world.path.confirm(world.now)
    assert world.state == "recovering"
    assert world.path.wake_s > world.now
    assert states(world.run(5)) == ["degraded", "down"]  # until connections stall
    world.heal()
    assert states(world.run(1)) == ["recovering", "up"]


def test_too_few_answers_hold_on() -> None:
    world = up()
    fail(world)
    count = iter(range(10**6))
    world.fate = lambda _now, _ask: 0.02 if next(count) % 3 == 0 else "lost"
    world.run(60)
    assert world.state == "recovering"


def test_a_long_outage_is_watched_more_slowly() -> None:
    world = up()
    world.black_out()
    world.run(700)
    start = world.now
    world.run(100)
    assert 190 <= len(world.rounds(start)) <= 201


# --- degraded -----------------------------------------------------------------------------


def test_loss_degrades_and_its_end_restores() -> None:
    world = up()
    count = iter(range(10**6))
    world.fate = lambda _now, ask: "lost" if next(count) % 4 == 0 else 0.02
    (step,) = world.run(30)
    assert step.state == "degraded"
    assert step.cause.startswith("loss ")
    world.fate = lambda _now, _ask: 0.02
    assert states(world.run(180)) == ["up"]


def test_delay_degrades_where_a_limit_is_set() -> None:
    world = up(config=HealthConfig(degraded_rtt_ms=100))
    world.rtt_s = 0.15
    (step,) = world.run(90)
    assert step.cause.startswith("round trip 1")
    world.rtt_s = 0.09
    assert world.run(300) == []
    world.rtt_s = 0.02
    assert states(world.run(90)) == ["up"]


def test_loss_that_is_no_concern() -> None:
    world = up(config=HealthConfig(degraded_loss=0))
    count = iter(range(10**6))
    world.fate = lambda _now, _ask: "lost" if next(count) % 4 == 0 else 0.02
    assert world.run(100) == []


# --- memory -------------------------------------------------------------------------------


def test_a_restart_goes_on_where_it_was() -> None:
    first = up()
    fail(first)
    memory = first.path.memory()
    second = World(memory=memory, now=first.now + 1)
    health = second.path.health()
    assert (health.state, health.since_s, health.cause) == (
        "down",
        first.path.health().since_s,
        first.path.health().cause,
    )
    assert states(second.run(10)) == ["recovering", "up"]
    assert Memory(**asdict(memory)) == memory


def test_a_restart_knows_its_targets() -> None:
    world = World(memory=up().path.memory(), now=2000)
    world.black_out()
    assert states(world.run(3)) == ["down"]


def test_presumed_up_is_judged_from_the_beginning() -> None:
    world = World(presumed="up")
    world.black_out()
    assert states(world.run(5)) == ["down"]


def test_a_memory_of_another_boot_or_of_rubbish() -> None:
    memory = replace(up().path.memory(), since_s=1e9, falls_s=(1e9,), losses=(float("nan"),) * 17)
    world = World(memory=memory)
    assert world.path.health().since_s == 1000
    assert world.run(10) == []


# --- what is counted ----------------------------------------------------------------------


def test_what_it_counts_only_grows_and_a_late_answer_is_no_loss() -> None:
    """Rounds that were answered, lost and late, a failure, and how long it took to decide."""
    world = up()
    before = world.path.counts.report("a", 4)
    assert (before.lost, before.entered) == (0, (("up", 1),))
    assert before.answered == sum(before.rtt) == before.rtt[4]  # 10 to 20 ms
    assert before.rtt_s == pytest.approx(0.02 * before.answered)
    assert len(before.rtt) == len(RTT_BUCKETS_S) + 1
    assert len(before.decide) == len(DECIDE_BUCKETS_S) + 1

    world.rtt_s = 0.2  # late, and accepted
    world.run(1)
    world.rtt_s = 0.02
    world.run(10)
    late = world.path.counts.report("a", 4)
    assert late.lost == 0
    assert late.rtt[RTT_BUCKETS_S.index(0.2)] > 0

    wrong: Iterator[Verdict] = iter(["wrong"])
    world.fate = lambda _, ask: next(wrong, 0.02) if ask.target != GATEWAY else 0.02
    world.run(5)
    assert world.path.counts.lost == 1
    world.black_out()
    world.fate = lambda _, ask: "lost" if ask.target in world.dead else 0.02
    world.run(20)
    (fall,) = [step for step in world.seen if step.state == "down"]
    took_s = float(fall.cause.split(" lost in ")[1].split(" ms")[0]) / 1000
    down = world.path.counts.report("a", 4)
    assert down.decide_s == pytest.approx(took_s, abs=0.001)
    assert sum(down.decide) == 1
    assert down.decide[bisect_left(DECIDE_BUCKETS_S, took_s)] == 1
    assert dict(down.entered)["down"] == 1
    sent = world.rounds(fall.at_s)
    assert len(sent) - 40 < down.lost - late.lost <= len(world.rounds(0.0))
    counts = [before, late, down]
    assert all(b.answered >= a.answered and b.lost >= a.lost for a, b in pairwise(counts))

"""Our Path on a simulated link: the object that the daemon drives, with simulated time.

Rules: four targets, no gateway, one round trip. `run` may leap over quiet rounds that will be
answered, when nothing is in flight or suspect: their effect on the path is computed in one step (a
test compares it with simulating each round).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from bench.judge_links import Case, Dying, LossModel
from ifdefault.health import Memory, Path
from ifdefault.health.degradation import LEAVE_FAST, LEAVE_SLOW
from ifdefault.health.loss_model import FAST_ROUNDS, SLOW_ROUNDS
from ifdefault.health.target import MARGIN_S
from ifdefault.model.config import HealthConfig
from ifdefault.model.health import PathState, Transition

DAY_S = 86400.0
RTT_S = 0.03
TARGETS = ("a", "b", "c", "d")
LEAST_LEAP = 4
WARM_UP_S = 60.0
LEAPT_S = 600.0  # how long a path is watched after its round trip leapt


@dataclass(slots=True)
class Run:
    """A path on a link."""

    link: LossModel
    rtt_s: float = RTT_S
    config: HealthConfig = field(default_factory=HealthConfig)
    memory: Memory | None = None
    leaps: bool = True
    path: Path = field(init=False)
    asked: int = 0
    _heap: list[tuple[float, int, bool, int]] = field(default_factory=list)
    _state: PathState = "unproven"

    def __post_init__(self) -> None:
        self.path = Path("uplink", 4, TARGETS, self.config, 0.0, self.memory, has_gateway=False)
        self._state = self.path.health().state

    def run(self, until_s: float, *, first_fall: bool = False) -> list[Transition]:
        """All transitions until then, or until the path goes down."""
        path, heap, link = self.path, self._heap, self.link
        transitions: list[Transition] = []
        while True:
            wake_s = path.wake_s
            steps: tuple[Transition, ...]
            if heap and heap[0][0] <= wake_s:
                now, seq, lost, rtt_us = heapq.heappop(heap)
                steps = path.observe(now, seq, "lost" if lost else "answered", rtt_us)
            else:
                if self.leaps and not heap:
                    wake_s = self._leap(wake_s, until_s)
                now = wake_s
                if now >= until_s:
                    return transitions
                for ask in path.asks(now):
                    self.asked += 1
                    lost, rtt_s = link.lost(now), self.rtt_s
                    if lost or rtt_s > ask.timeout_s:
                        heapq.heappush(heap, (now + ask.timeout_s, ask.seq, True, 0))
                    if not lost:
                        heapq.heappush(heap, (now + rtt_s, ask.seq, False, int(rtt_s * 1e6)))
                steps = path.tick(now)
            if steps:
                transitions += steps
                self._state = steps[-1].state
                if first_fall and self._state == "down":
                    return transitions

    def _leap(self, wake_s: float, until_s: float) -> float:
        """Leap over answered rounds, and return the new wake-up time."""
        path, schedule = self.path, self.path._schedule
        every_s = 1 / self.config.rounds_per_s
        if (
            self._state not in ("up", "degraded")
            or schedule.round_s != wake_s
            or path._detector.run
        ):
            return wake_s
        rounds = min(self.link.spare(wake_s, every_s), int((until_s - wake_s) / every_s) + 1)
        if rounds < LEAST_LEAP or not self._is_settled():
            return wake_s
        degradation, loss_model = path._degradation, path._loss_model
        fast, slow = (step for step in degradation._steps)
        fast_then = degradation._fast * (1 - fast) ** rounds
        slow_then = degradation._slow * (1 - slow) ** rounds
        limit = self.config.degraded_loss
        if (
            degradation.cause
            and fast_then <= limit * LEAVE_FAST
            and slow_then <= limit * LEAVE_SLOW
        ):
            return wake_s  # it would stop being degraded in between
        degradation._fast, degradation._slow = fast_then, slow_then
        loss_model._slow, loss_model._slow_n = fade(
            loss_model._slow, loss_model._slow_n, SLOW_ROUNDS, rounds
        )
        loss_model._fast, loss_model._fast_n = fade(
            loss_model._fast, loss_model._fast_n, FAST_ROUNDS, rounds
        )
        self.link.skip(rounds)
        self.asked += rounds
        schedule.round_s += rounds * every_s
        path._detector.clear_s = schedule.round_s - every_s
        return path.wake_s

    def _is_settled(self) -> bool:
        """Whether further answers no longer change the path's timeouts."""
        schedule = self.path._schedule
        return schedule.excess_s < MARGIN_S / 2 and all(
            target.good and 4 * target.var_s < MARGIN_S / 2 and target.losses_in_row == 0
            for target in schedule.deciding
        )


def fade(share: float, n: float, limit: int, rounds: int) -> tuple[float, float]:
    """A running mean of `n` values, of at most `limit`, after so many zeros."""
    growing = min(rounds, max(0, limit - int(n)))
    return share * n / (n + growing) * (1 - 1 / limit) ** (rounds - growing), n + growing


@dataclass(frozen=True, slots=True)
class Watched:
    """The result of a long time on a link that was up throughout."""

    days: float
    falls_s: tuple[float, ...]
    rounds: int
    memory: Memory


def watch(case: Case, days: float, seed: int) -> Watched:
    """Count the false alarms of a path that begins without history."""
    run = Run(case.make(seed))
    transitions = run.run(days * DAY_S)
    falls = tuple(step.at_s for step in transitions if step.state == "down")
    return Watched(days, falls, run.asked, run.path.memory())


def delay_s(
    case: Case, seed: int, part: float, rtt_s: float = RTT_S, learned: Memory | None = None
) -> float:
    """How long it takes to detect that the link died, `part` of a second after a minute; without
    `learned`, after five minutes. NaN if the path was down already."""
    alive_s = WARM_UP_S if learned else 5 * WARM_UP_S
    dies_s = alive_s + part
    memory = learned and Memory("up", 0.0, "", learned.losses, learned.seen)
    run = Run(Dying(case.make(seed), dies_s), rtt_s, memory=memory)
    run.run(dies_s)
    if run.path.health().state not in ("up", "degraded"):
        return math.nan
    return run.run(dies_s + 600, first_fall=True)[-1].at_s - dies_s


@dataclass(frozen=True, slots=True)
class Leap:
    """What became of a path whose round trip leapt, and that lost no more than before."""

    falls: int
    down_s: float  # from the first fall until it was up again
    works: bool  # up or degraded at the end


def leap(case: Case, seed: int, part: float, to_s: float) -> Leap:
    """The round trip leaps from RTT_S to `to_s`, `part` of a second after five minutes."""
    leaps_s = 5 * WARM_UP_S + part
    run = Run(case.make(seed))
    run.run(leaps_s)
    run.rtt_s = to_s
    steps = run.run(leaps_s + LEAPT_S)
    falls = [step.at_s for step in steps if step.state == "down"]
    back = [step.at_s for step in steps if step.state in ("up", "degraded") and falls]
    down_s = (
        min((at for at in back if at > falls[0]), default=math.inf) - falls[0] if falls else 0.0
    )
    return Leap(len(falls), down_s, run.path.health().state in ("up", "degraded"))

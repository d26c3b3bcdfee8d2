"""Simulated hours: a world, a daemon and its witness.

Rules: each hour is a world of its own, told by seed and number. Where all is quiet, time leaps to
shortly before the next incident, which the daemon takes for a machine that slept; some hours are
lived through without.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

from ifdefault.daemon.controller.controller import Controller
from tests.simulation import costs, lives, outside
from tests.simulation.daemon import Daemon
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.trace import Trace
from tests.simulation.world import World

HOUR_S = 3600.0
UNLEAPED = 16  # every 16th hour is simulated without leaps
QUIET_S, LEAD_S, LEAST_S = 6.0, 3.0, 3.0  # since an incident, until the next, and worth a leap
LATE, DEAD = 0.2, 0.1  # uplinks that aren't there when the daemon begins, lines that are dead
EARLY = 0.1  # of the hours begin before any uplink is there
_SPIN = 300  # turns at one time


@dataclass(frozen=True)
class Hour:
    """The outcome of an hour."""

    seed: int
    number: int
    counts: Counter[str]
    at_s: float  # when it ended
    digest: str
    violation: str = ""
    last: tuple[str, ...] = ()


class Simulation:
    def __init__(self, seed: int, number: int) -> None:
        self.world = World(f"{seed}/{number}")
        self.trace = Trace()
        self.daemon = Daemon(self.world, self.trace)
        self.invariants = Invariants(self.world, self.daemon)
        self.daemon.witness = self.invariants
        self._leaps = number % UNLEAPED != 0
        self._incident_s = self._look_s = 0.0
        self._prepare()

    def _prepare(self) -> None:
        world, daemon = self.world, self.daemon
        rng, clock = Random(f"{world.seed} begin"), world.clock
        early = Random(f"{world.seed} late").random() < EARLY
        for uplink in world.uplinks:
            if rng.random() < LATE or early:
                uplink.up = uplink.carrier = False
                world.set_link(uplink)
                own = Random(f"{world.seed} {uplink.name} late")
                clock.start(lives.come_late(world, uplink, own))
            else:
                own = Random(f"{world.seed} {uplink.name}")
                clock.start(lives.live_link(world, uplink, own))
            for family, line in uplink.lines.items():
                if rng.random() < DEAD:
                    line.become(0.0, "black hole")
                own = Random(f"{world.seed} {uplink.name} {family}")
                clock.start(lives.live_line(world, line, own))
        operator = outside.Operator(world, daemon)
        for process in (
            operator.live(),
            outside.Stranger(world, daemon).live(),
            outside.live_and_die(world, daemon, operator),
            outside.have_trouble(world, daemon),
        ):
            clock.start(process)
        clock.start(outside.watch_silent(daemon), routine=True)
        world.disk.config = costs.draw_costs(world.seed, world.disk.config)
        if any(u.budget_bytes or u.metered or u.hours for u in world.disk.config.uplinks):
            clock.start(costs.count_traffic(world, daemon), routine=True)
        world.traffic = rng.random() < 0.5
        if world.traffic:
            clock.start(outside.see_traffic(world, daemon), routine=True)
        daemon.start()

    def run(self, seconds: float = HOUR_S) -> None:
        """Raises Violation if an invariant doesn't hold."""
        clock, daemon = self.world.clock, self.daemon
        spin, last_s = 0, -1.0
        while (due_s := min(clock.due_s, daemon.wake_s)) < seconds:
            if due_s > clock.now:
                clock.now = due_s
            if daemon.wake_s <= clock.now:
                daemon.turn()
            elif clock.step():
                self._incident_s = clock.now
                self.invariants.looked()
            spin = spin + 1 if clock.now == last_s else 0
            last_s = clock.now
            if spin > _SPIN:
                raise Violation(f"time goes on: {_SPIN} turns at {last_s}, wakes {daemon.wake_s}")
            if self._leaps and clock.now >= self._look_s:
                self._look_s = clock.now + 0.5
                self._leap(seconds)

    def _leap(self, seconds: float) -> None:
        """Leap to the next incident, if nothing happens until then."""
        clock, controller = self.world.clock, self.daemon.controller
        to_s = min(clock.incident_s, seconds) - LEAD_S
        if controller is None or to_s < clock.now + LEAST_S or not self._is_quiet(controller):
            return
        self.world.counts["leaps"] += 1
        self.world.counts["leaped seconds"] += int(to_s - clock.now)
        clock.now = self.daemon.leaped_s = to_s

    def _is_quiet(self, controller: Controller) -> bool:
        state, daemon = controller.state, self.daemon
        quiet_s = max(self._incident_s, daemon.disturbed_s, daemon.leaped_s)
        if self.world.clock.now < quiet_s + QUIET_S or not daemon.frontend.alive or daemon.slow_s:
            return False
        pending = state.unapplied or state.adoptions or state.unconfirmed or daemon.asked
        if (
            pending
            or controller._reconciler.awaited
            or controller._reconciler.backoff.until_s > quiet_s
        ):
            return False
        return not any(h.bursting or h.state == "recovering" for h in controller.paths.health())


def live(seed: int, number: int, seconds: float = HOUR_S) -> Hour:
    """Simulate one hour; a failure is returned, not raised."""
    simulation, wrong = Simulation(seed, number), ""
    try:
        simulation.run(seconds)
    except Violation as violation:
        wrong = str(violation)
    except Exception as error:  # noqa: BLE001  # a fault of the daemon's, whichever
        wrong = f"no exception: {type(error).__name__}: {error} ({_where(error)})"
    counts = simulation.world.counts
    counts["turns"] += simulation.daemon.turns
    at_s, trace = simulation.world.clock.now, simulation.trace
    return Hour(seed, number, counts, at_s, trace.digest, wrong, trace.lines())


def _where(error: BaseException) -> str:
    """Where an exception was raised."""
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else ""

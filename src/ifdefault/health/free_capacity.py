"""How full the lines of the uplinks are, and what share of its weight each has because of that.

    utilisation   3/4    7/8    15/16      of the direction that is fuller
    share      1  |  1/2  |  1/4  |  1/8   twice the free capacity, in halves

Rules: pure. A share falls as soon as a line fills up, by several steps if need be. It rises by one
step once the line has had room, for a while, for all that the step may bring, and later each time
that this turns out to have been too early: connections last, and resolvers keep names, so that the
load follows late. So the shares settle under a steady load. They never fall to 0, and all change
together, seldom. If all lines are equally full, the ratio is the config's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, inf

from ifdefault.model.config import UplinkConfig
from ifdefault.model.health import WHOLE, Direction, LineLoad, LinkCounter

FULL_AT = (3 / 4, 7 / 8, 15 / 16)  # utilisation from which on one more step is taken
STEPS = len(FULL_AT)
CHANGE_S = 5.0  # between two changes of shares
RISE_S, RISE_LONGEST_S = 15.0, 300.0  # how long a line must have room for a step to be given back
_TOO_EARLY_S = 600.0  # a line that fills up so soon after a step back hadn't room for it
_MEAN_S = 3.0  # time constant of the mean rate


@dataclass(slots=True)
class _Line:
    """`steps`: 0 to STEPS, its share is 1 / 2**steps. `room_s`: since when it has room for one step
    less. `risen_s`: when the share rose last. `full`: reported as such."""

    counter: LinkCounter
    at_s: float
    rates: tuple[float, float] = (0.0, 0.0)  # bit/s in, out
    capacity: tuple[int, int] = (1, 1)
    steps: int = 0
    room_s: float = inf
    risen_s: float = -inf
    rise_s: float = RISE_S
    full: bool = False

    def count(self, now: float, counter: LinkCounter, capacity: tuple[int, int]) -> None:
        before, passed_s = self.counter, now - self.at_s
        self.capacity = capacity
        if passed_s <= 0:
            return
        self.counter, self.at_s = counter, now
        new_in = counter.bytes_in - before.bytes_in
        new_out = counter.bytes_out - before.bytes_out
        if counter.link == before.link and min(new_in, new_out) >= 0:
            share = 1 - exp(-passed_s / _MEAN_S)
            rate_in, rate_out = self.rates
            rate_in += share * (8 * new_in / passed_s - rate_in)
            rate_out += share * (8 * new_out / passed_s - rate_out)
            self.rates = rate_in, rate_out

    @property
    def used(self) -> float:
        return max(rate / most for rate, most in zip(self.rates, self.capacity, strict=True))

    def wanted(self, now: float, growth: float) -> int:
        """The steps that it should have now. `growth`: of its load, if its weight doubles."""
        used = self.used
        needed = sum(used >= full for full in FULL_AT)
        has_room = needed < self.steps and growth * used < FULL_AT[self.steps - 1]
        self.room_s = min(self.room_s, now) if has_room else inf
        return self.steps - 1 if now >= self.room_s + self.rise_s else max(needed, self.steps)

    def change(self, now: float, steps: int) -> None:
        if steps < self.steps:
            self.risen_s = now
        elif now < self.risen_s + _TOO_EARLY_S:
            self.rise_s = min(2 * self.rise_s, RISE_LONGEST_S)
        elif self.steps == 0:
            self.rise_s = RISE_S
        self.steps, self.room_s = steps, inf

    def load(self, uplink: str) -> LineLoad:
        used_in, used_out = (r / c for r, c in zip(self.rates, self.capacity, strict=True))
        outward = used_out > used_in
        direction: Direction = "out" if outward else "in"
        return LineLoad(
            uplink, self.used, direction, self.capacity[outward], WHOLE >> self.steps, self.full
        )


class FreeCapacity:
    """The lines of uplinks that have a capacity."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._changed_s = -inf

    def count(
        self, now: float, uplinks: Sequence[UplinkConfig], counters: Iterable[LinkCounter]
    ) -> bool:
        """Take in the counters of the uplinks' interfaces; a line without any is forgotten. True
        if a share changed."""
        capacities = {u.name: u.capacity for u in uplinks if u.capacity}
        before, self._lines = self._lines, {}
        for counter in counters:
            if capacity := capacities.get(counter.uplink):
                line = before.pop(counter.uplink, None) or _Line(counter, now)
                line.count(now, counter, capacity)
                self._lines[counter.uplink] = line
        forgotten = any(line.steps for line in before.values())
        weights = {u.name: u.weight / 2 ** self._steps(u) for u in uplinks}
        total = sum(weights.values())
        wanted = [
            (line, line.wanted(now, 2 * total / (total + weights[name])))
            for name, line in self._lines.items()
        ]
        changing = [(line, steps) for line, steps in wanted if steps != line.steps]
        if not changing or now < self._changed_s + CHANGE_S:
            return forgotten
        self._changed_s = now
        for line, steps in changing:
            line.change(now, steps)
        return True

    def shares(self, uplinks: Sequence[UplinkConfig]) -> tuple[tuple[str, int], ...]:
        """As in a Decision; () if all uplinks have the same."""
        steps = {u.name: self._steps(u) for u in uplinks}
        if len(set(steps.values())) <= 1:
            return ()
        return tuple((name, WHOLE >> number) for name, number in steps.items() if number)

    def _steps(self, uplink: UplinkConfig) -> int:
        line = self._lines.get(uplink.name)
        return line.steps if line and uplink.capacity else 0

    def reports(self) -> tuple[LineLoad, ...]:
        """Lines that have become full, or have room again, since the last call."""
        reports = []
        for name, line in self._lines.items():
            full = line.steps == STEPS or (line.full and line.steps > 0)
            if full != line.full:
                line.full = full
                reports.append(line.load(name))
        return tuple(reports)

    def loads(self, uplinks: Sequence[UplinkConfig]) -> tuple[LineLoad, ...]:
        """For the status."""
        names = {u.name for u in uplinks if u.capacity}
        return tuple(line.load(name) for name, line in self._lines.items() if name in names)

"""Invariants of the way back: what an uplink carries returns to a better one, and only to one.

Rules: as in `invariants`.
"""

from __future__ import annotations

from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.controller.effects import ReturnConnections
from ifdefault.daemon.controller.state import Key
from ifdefault.model.config import Family
from ifdefault.model.health import Decision
from tests.simulation.world import World

_LATE_S = 5.0  # after the grace


class WayBack:
    def __init__(self, world: World) -> None:
        self._world = world
        self._carrying: set[Key] = set()  # paths that have had the default, until they end it
        self._left_s: dict[Key, float] = {}  # when a better one got it

    def ended(self, name: str, family: Family) -> None:
        """A path's connections ended."""
        self._carrying.discard((name, family))
        self._left_s.pop((name, family), None)

    def restarted(self) -> None:
        self._left_s.clear()

    def better_one_is_used(self, controller: Controller, step: ReturnConnections) -> str:
        """An uplink's connections are ended only when new ones use a better one."""
        usable = (controller.state.decision or Decision()).usable_in(step.family)
        used = self._default(step.family)
        path = f"{step.uplink} IPv{step.family}"
        if not step.better or not set(step.better) <= set(usable):
            return f"{path} to {step.better}, and usable are {usable}"
        if not _is_better(controller, used, step.uplink):
            return f"{path} while the default is {used or 'nowhere'}"
        return ""

    def none_is_kept(self, controller: Controller, disturbed_s: float) -> str:
        """What an uplink has carried ends, once a better one has been used for the grace."""
        now = self._world.clock.now
        for setting in controller.state.config.uplinks:
            for family in self._world.uplink(setting.name).families:
                key = setting.name, family
                used = self._default(family)
                if used == setting.name:
                    self._carrying.add(key)
                is_left = key in self._carrying and _is_better(controller, used, setting.name)
                if not (is_left and setting.on_return == "end" and _can_carry(controller, key)):
                    self._left_s.pop(key, None)
                elif now - self._since_s(key, now, disturbed_s) > setting.grace_s + _LATE_S:
                    return f"{setting.name} IPv{family} keeps what it carried"
        return ""

    def _since_s(self, key: Key, now: float, disturbed_s: float) -> float:
        return max(self._left_s.setdefault(key, now), disturbed_s)

    def _default(self, family: Family) -> str:
        uplink = self._world.by_way(self._world.kernel.default(family), family)
        return uplink.name if uplink else ""


def _can_carry(controller: Controller, key: Key) -> bool:
    state, _ = controller.paths.states().get(key, ("", 0.0))
    forced = controller.state.forced.get(key[0], "auto")
    return state in ("up", "degraded") and forced == "auto"


def _is_better(controller: Controller, name: str, other: str) -> bool:
    standby = dict((controller.state.decision or Decision()).standby)
    cost = {u.name: (u.name in standby, u.rank) for u in controller.state.config.uplinks}
    return name in cost and cost[name] < cost[other]

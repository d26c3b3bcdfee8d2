"""What uplinks have used of their budgets, and the events that tell of it.

Rules: counted for uplinks that have a budget or are metered. An event is written once when a
budget is low, once when it is used up, and once when a new month makes an uplink usable
again, over restarts too. It is saved at once, all else with the memories of paths.
"""

from __future__ import annotations

from ifdefault.daemon.controller.decision import standby_uplinks
from ifdefault.daemon.controller.events import TrafficCounted
from ifdefault.daemon.controller.state import State
from ifdefault.health.usage import LocalClock, UsageCount
from ifdefault.model.config import FAMILIES, OnBudget, Severity, UplinkConfig
from ifdefault.model.health import StandbyReason
from ifdefault.model.month import day_name, day_text, month_of
from ifdefault.model.report_text import budget_used, size
from ifdefault.model.usage import SavedUsage, Usage

_NOTHING, _MUCH, _ALL = range(3)  # levels
_SEVERITY: dict[int, Severity] = {_MUCH: "warning", _ALL: "error"}
_FOLLOWS: dict[OnBudget, str] = {
    "warn": "the uplink is used as before",
    "standby": "the uplink is a standby until {}",
    "down": "the uplink is down until {}",
}


class Budgets:
    """`restored`: what an earlier engine saved, until the first traffic is counted."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.restored: SavedUsage | None = None
        self._clock = LocalClock()
        self._counts: dict[str, UsageCount] = {}

    def observe(self, event: TrafficCounted) -> bool:
        """Count, and judge. True if it has to be saved at once."""
        if self.restored is not None:
            self._resume(self.restored, event.boot_s)
        state, clock = self._state, self._clock
        clock.tell(event.wall_s, event.local_s, event.boot_s)
        counted = {u.name: u for u in state.config.uplinks if u.is_counted}
        for counter in event.counters:
            if uplink := counted.get(counter.uplink):
                count = self._counts.setdefault(uplink.name, UsageCount())
                count.add(clock, counter, uplink.interface)
        standby, down = self._judged()
        state.minute = int(event.local_s % 86_400 // 60)
        state.usage = tuple(map(self._usage, counted.values()))
        after = self._judged()
        state.decision_due |= after != (standby, down)
        state.went_down |= {(name, f): None for name in after[1] - down for f in FAMILIES}
        noted = [self._note(uplink) for uplink in counted.values() if uplink.budget_bytes]
        return any(noted)

    def _judged(self) -> tuple[dict[str, StandbyReason], set[str]]:
        """Which uplinks stand by, and which are down, operator's included."""
        state, config = self._state, self._state.config
        down = {name for name, forced in state.forced_states(config).items() if forced == "down"}
        return dict(standby_uplinks(state, config)), down

    def saved(self) -> SavedUsage | None:
        """None if nothing is counted: what was saved stays as it is."""
        if not self._state.usage:
            return None
        counts = tuple(count.saved(name) for name, count in sorted(self._counts.items()))
        return SavedUsage(self._clock.at_s, self._clock.boot_s, counts)

    def _resume(self, saved: SavedUsage, boot_s: float) -> None:
        self._clock.resume(saved, boot_s)
        self._counts = {each.uplink: UsageCount.restored(each, saved) for each in saved.uplinks}
        self.restored = None

    def _usage(self, uplink: UplinkConfig) -> Usage:
        since, until = month_of(self._clock.today, uplink.reset_day)
        count = self._counts.get(uplink.name, UsageCount())
        return Usage(
            uplink.name,
            count.used(since, until, self._clock),
            uplink.budget_bytes,
            day_text(since),
            day_text(until),
            uplink.on_budget,
        )

    # --- events ---------------------------------------------------------------------------

    def _note(self, uplink: UplinkConfig) -> bool:
        """Tell of a level that is new. True if that has to be remembered."""
        count = self._counts.get(uplink.name)
        if count is None:
            return False
        usage = next(usage for usage in self._state.usage if usage.uplink == uplink.name)
        month, _ = month_of(self._clock.today, uplink.reset_day)
        known, level = count.noted.get(month), _level(usage)
        if level == known:
            return False
        before = [noted for begin, noted in sorted(count.noted.items()) if begin < month]
        count.note(month, level)
        again = "" if uplink.on_budget == "warn" else "; the uplink is used again"
        if level > (known or _NOTHING):
            self._state.log("budget", _warning(usage, level), uplink.name, _SEVERITY[level])
        elif known == _ALL:
            text = f"{uplink.name}: its budget is now {size(usage.limit_bytes)}{again}"
            self._state.log("budget", text, uplink.name)
        elif known is None and before[-1:] == [_ALL]:
            text = f"{uplink.name}: a new month of its budget began{again}"
            self._state.log("budget", text, uplink.name)
        return True


def _level(usage: Usage) -> int:
    if usage.used_up:
        return _ALL
    return _MUCH if usage.is_low else _NOTHING


def _warning(usage: Usage, level: int) -> str:
    if level == _MUCH:
        return f"{usage.uplink}: {budget_used(usage)}"
    follows = _FOLLOWS[usage.on_budget].format(day_name(usage.until))
    return f"{usage.uplink}: its budget of {size(usage.limit_bytes)} is used up; {follows}"

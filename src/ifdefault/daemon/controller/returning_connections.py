"""Ends the connections that an uplink carries although a better one is usable again.

    it is usable ─> Publish ─> Converge ─> Applied ─> grace ─> ReturnConnections

Rules: better than an uplink is one that precedes it and has a lower rank, or that is no standby
while it is one; of equal ranks none is, nor one that hasn't answered since the daemon started. The
grace begins when the kernel is as decided; a new failure cancels it, and so does `down`.
Connections end at most once for each return of a better uplink, also if the daemon is started
anew, since a program that has bound its sockets to the uplink's address can't be told apart. None
ends on an uplink that is down (see `stale_connections`) or drained.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from math import inf

from ifdefault.daemon.controller.effects import ReturnConnections
from ifdefault.daemon.controller.state import Key, State
from ifdefault.model.config import FAMILIES, Family, UplinkConfig
from ifdefault.model.health import Decision, PathState
from ifdefault.model.kernel import Uplink
from ifdefault.model.returning import Returning
from ifdefault.plan.prepare import Prepared


class ReturningConnections:
    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def wake_s(self) -> float:
        """When the next grace is over; while the kernel isn't as decided, that is waited for."""
        state = self._state
        return min(state.graces.values(), default=inf) if state.stands else inf

    def update(self, now: float, paths: Mapping[Key, PathState]) -> bool:
        """Begin and cancel graces. True if one was over, and connections end."""
        state = self._state
        decision, prepared = state.decision, state.prepared
        if state.held:
            state.graces.clear()
        if not state.stands or not state.settled or decision is None or prepared is None:
            return False
        ends = False
        before, state.graces = state.graces, {}
        was, state.returned = state.returned, {}
        for setting, family in _ending(state):
            key = setting.name, family
            usable = [
                name
                for name in decision.usable_in(family)
                if paths.get((name, family)) != "unproven" or state.forced.get(name) == "up"
            ]
            better = _better(state, decision, usable, setting, family)
            known = tuple(name for name in better if name in was.get(key, ()))
            if known == better or not self._may_carry(setting, paths.get(key)):
                state.returned[key] = known
            elif now < (due_s := before.get(key, now + setting.grace_s)):
                state.returned[key], state.graces[key] = known, due_s
            else:
                state.returned[key] = better
                self._return(prepared, key, tuple(n for n in better if n not in known))
                ends = True
        return ends

    def _may_carry(self, setting: UplinkConfig, path: PathState | None) -> bool:
        ready = any(u.name == setting.name and not u.pending for u in self._state.uplinks)
        return ready and path != "down" and self._state.forced_state(setting) in ("auto", "up")

    def _return(self, prepared: Prepared, key: Key, better: tuple[str, ...]) -> None:
        name, family = key
        uplink = next(u for u in prepared.uplinks if u.name == name)
        returning = returning_from(prepared, uplink, better, family)
        self._state.out.append(ReturnConnections(name, family, better, returning))


def _ending(state: State) -> Iterator[tuple[UplinkConfig, Family]]:
    for setting in state.config.uplinks:
        if setting.on_return == "end":
            for family in FAMILIES:
                yield setting, family


def _better(
    state: State,
    decision: Decision,
    usable: Sequence[str],
    setting: UplinkConfig,
    family: Family,
) -> tuple[str, ...]:
    """The usable uplinks that are better than this one."""
    standby = dict(decision.standby)
    ranks = {uplink.name: uplink.rank for uplink in state.config.uplinks}
    ranking = decision.ranking(family)
    if setting.name not in ranking:
        return ()
    preceding = ranking[: ranking.index(setting.name)]
    mine = setting.name in standby, setting.rank
    return tuple(
        name
        for name in preceding
        if name in usable and (name in standby, ranks.get(name, 0)) < mine
    )


def returning_from(
    prepared: Prepared, uplink: Uplink, better: Container[str], family: Family
) -> Returning:
    """What identifies the connections of an uplink that return to better ones."""
    targets = [u for u in prepared.uplinks if u.name in better]
    others = {a.address for u in prepared.uplinks if u.name != uplink.name for a in u.addresses}
    own = (
        a.address
        for a in uplink.addresses
        if a.family == family and not a.address.startswith("fe80:")
    )
    hook = prepared.desired.hook
    marks = dict(hook.marks) if hook else {}
    groups = hook.cgroups if hook else ()
    return Returning(
        family,
        addresses=tuple(address for address in own if address not in others),
        mark=uplink.outgoing_mark,
        mask=uplink.mark_mask,
        tables=tuple(u.table for u in targets),
        marks=tuple(u.outgoing_mark for u in targets),
        balanced=bool(marks.get(family)),
        groups=tuple((path, four if family == 4 else six) for path, four, six in groups),
        own=tuple(a.address for a in prepared.facts.addresses if a.family == family),
    )

"""Planted bugs, each of another kind, that the simulation must find within some simulated hours.

Rules: each is a plausible mistake in one function of the controller, the planner or the detector.
`PLANTED` is the table of all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ifdefault.daemon.controller import names, returning_connections
from ifdefault.daemon.controller.adopt import Adopter
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.controller.events import Event, Started
from ifdefault.daemon.controller.names import Names
from ifdefault.daemon.controller.returning_connections import ReturningConnections
from ifdefault.daemon.controller.state import State
from ifdefault.dns.publish import publish
from ifdefault.health import failure_detector
from ifdefault.model.config import Config, Family, UplinkConfig
from ifdefault.model.dns import CandidateAddresses, DnsConfig, Published
from ifdefault.model.errors import Problem
from ifdefault.model.health import Decision
from ifdefault.model.kernel import Facts, Rule, Uplink
from ifdefault.plan import policy_rules

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Planted:
    plant: Plant
    finders: tuple[str, ...]  # invariants, one of which finds it
    hours: int  # within so many
    first: int = 1  # the hour to begin with


def decides_by_transitions(patch: pytest.MonkeyPatch) -> None:
    """Decisions are made on path transitions only: links that appear late change nothing."""
    stepped: set[int] = set()
    tell, decide = Controller._report_transitions, Controller._decide

    def telling(self: Controller) -> None:
        if self.state.transitions:
            stepped.add(id(self))
        tell(self)

    def deciding(self: Controller, uplinks: tuple[Uplink, ...], facts: Facts) -> bool:
        self.state.decision_due = False
        if id(self) in stepped or self.state.decision is None:
            stepped.discard(id(self))
            return decide(self, uplinks, facts)
        return False

    patch.setattr(Controller, "_report_transitions", telling)
    patch.setattr(Controller, "_decide", deciding)


def ends_connections_early(patch: pytest.MonkeyPatch) -> None:
    """Connections are ended as soon as it is decided, before the kernel is changed."""
    decide = Controller._decide

    def deciding(self: Controller, uplinks: tuple[Uplink, ...], facts: Facts) -> bool:
        changed = decide(self, uplinks, facts)
        owed, self.state.unapplied = self.state.unapplied, False
        self._stale.end(self.paths.path_states())
        self.state.unapplied = owed
        return changed

    patch.setattr(Controller, "_decide", deciding)


def forgets_dead_sources(patch: pytest.MonkeyPatch) -> None:
    """An uplink that isn't usable has no source rules: its clients get no answer."""
    rules = policy_rules.policy_rules

    def without(
        config: Config, facts: Facts, usable: tuple[Uplink, ...], naive: Any, decision: Decision
    ) -> Iterator[Rule]:
        for rule in rules(config, facts, usable, naive, decision):
            named = [u.name for u in usable if u.table == rule.table and rule.src]
            if not named or named[0] in decision.usable_in(rule.family):
                yield rule

    patch.setattr(policy_rules, "policy_rules", without)


def forgets_memories(patch: pytest.MonkeyPatch) -> None:
    """A restart forgets which paths are down."""
    take = Controller._on_event

    def taking(self: Controller, event: Event, now: float) -> None:
        take(self, replace(event, memories=()) if isinstance(event, Started) else event, now)

    patch.setattr(Controller, "_on_event", taking)


def forgets_forced(patch: pytest.MonkeyPatch) -> None:
    """A restart forgets the forced states of uplinks."""
    take = Controller._on_event

    def taking(self: Controller, event: Event, now: float) -> None:
        take(self, replace(event, forced=()) if isinstance(event, Started) else event, now)

    patch.setattr(Controller, "_on_event", taking)


def publishes_old_config(patch: pytest.MonkeyPatch) -> None:
    """A reload's names aren't published."""
    follow = Names.update

    def following(self: Names, now: float, config: Config, *rest: Any) -> None:
        old = replace(config, dns=self._last.config.dns) if self._last else config
        follow(self, now, old, *rest)

    patch.setattr(Names, "update", following)


def withdraws_last_address(patch: pytest.MonkeyPatch) -> None:
    """A name whose uplinks are all dead is left without an address."""

    def publishing(
        config: DnsConfig,
        offers: Sequence[CandidateAddresses],
        decision: Decision,
        doubted: Collection[str],
    ) -> tuple[Published, ...]:
        return tuple(
            replace(
                name,
                addresses=tuple(
                    each
                    for each in name.addresses
                    if each.uplink in decision.usable_in(each.family)
                ),
            )
            for name in publish(config, offers, decision, doubted)
        )

    patch.setattr(names, "publish", publishing)


def waits_too_long(patch: pytest.MonkeyPatch) -> None:
    """The failure detector waits too long."""
    patch.setattr(failure_detector, "PATIENCE_S", 1.5)


def answers_no_refusal(patch: pytest.MonkeyPatch) -> None:
    """A refused request is never answered."""

    def failed(self: Adopter, now: float, problems: tuple[Problem, ...]) -> None:
        self.current = self._prepared = None

    patch.setattr(Adopter, "failed", failed)


def forgets_the_way_back(patch: pytest.MonkeyPatch) -> None:
    """What an uplink carries stays, whoever returns."""
    patch.setattr(ReturningConnections, "update", lambda *_: False)


def returns_while_failing(patch: pytest.MonkeyPatch) -> None:
    """A grace goes on, although the better uplink failed meanwhile."""
    better, last = returning_connections._better, dict[tuple[str, Family], tuple[str, ...]]()

    def remembering(
        state: State,
        decision: Decision,
        usable: Sequence[str],
        setting: UplinkConfig,
        family: Family,
    ) -> tuple[str, ...]:
        key = setting.name, family
        last[key] = better(state, decision, usable, setting, family) or last.get(key, ())
        return last[key]

    patch.setattr(returning_connections, "_better", remembering)


PLANTED = {
    "decisions follow transitions only": Planted(
        decides_by_transitions, ("the decision is that of now", "the kernel is as desired"), 3
    ),
    "connections end too early": Planted(ends_connections_early, ("connections end last",), 3),
    "a dead uplink has no source rules": Planted(
        forgets_dead_sources, ("replies keep their way",), 3
    ),
    "a restart forgets the dead": Planted(
        forgets_memories, ("a restart changes nothing",), 3, first=7
    ),
    "a restart forgets the operator": Planted(
        forgets_forced, ("the decision is that of now", "a restart changes nothing"), 3
    ),
    "a reload isn't published": Planted(
        publishes_old_config, ("names follow", "names keep an address"), 3
    ),
    "a name loses its last address": Planted(withdraws_last_address, ("names keep an address",), 3),
    "a dead line is waited for": Planted(waits_too_long, ("dead uplinks are left",), 3, first=3),
    "connections never return": Planted(forgets_the_way_back, ("connections return",), 3),
    "connections return to the dead": Planted(returns_while_failing, ("connections return",), 3),
    "a refusal isn't answered": Planted(answers_no_refusal, ("one answer each",), 3, first=3),
}

"""From a host as it was observed to what is to be done: resolve, then prepare.

    config, Observation ──resolve──> Resolved ──decide (the caller's)──> prepare ──> Prepared

Rules: pure, and all that is read comes in the Observation. Originals are the oldest values there
were, never one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ifdefault.model.changes import Changes
from ifdefault.model.config import Config, OutgoingRule
from ifdefault.model.errors import Problem
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Desired, Facts, Loaded, Operation, SetGroup, SetSysctl, Uplink
from ifdefault.plan import conflicts, numbers
from ifdefault.plan.describe import describe
from ifdefault.plan.desired import desire, resolve_uplinks
from ifdefault.plan.diff import diff, own_routes, own_rules

T = TypeVar("T")
_NO_CONFIG, _UNDECIDED = Config(()), Decision()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A config's uplinks on a host as it is now. The config has a rule more for each command that
    keeps to an uplink; the state has their numbers."""

    config: Config
    observation: Observation
    state: State
    uplinks: tuple[Uplink, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before the first change. `state` is to be on disk before that."""

    observation: Observation
    uplinks: tuple[Uplink, ...]
    desired: Desired
    operations: tuple[Operation, ...]
    state: State
    problems: tuple[Problem, ...] = ()
    config: Config = _NO_CONFIG
    decision: Decision = _UNDECIDED  # the running daemon's
    lacks: tuple[Problem, ...] = ()  # what the config wants and this host, or process, can't do

    @property
    def facts(self) -> Facts:
        return self.observation.facts

    @property
    def loaded(self) -> Loaded:
        return self.observation.loaded


def resolve(config: Config, observation: Observation) -> Resolved:
    """ConfigError if two uplinks claim one address and nothing can tell them apart."""
    there = dict(observation.groups)
    runs = {path: u for path, u in observation.state.runs.items() if there.get(path)}
    numbering = numbers.assign([u.name for u in config.uplinks], observation.state.numbers)
    if runs:  # each command's rule stands before the config's own
        rules = tuple(OutgoingRule(via=(u,), cgroups=(path,)) for path, u in runs.items())
        outgoing = replace(config.outgoing, rules=rules + config.outgoing.rules)
        config = replace(config, outgoing=outgoing)
    return Resolved(
        config,
        observation,
        replace(observation.state, numbers=numbering, runs=runs),
        resolve_uplinks(config, observation.facts, numbering),
    )


def prepare(
    resolved: Resolved, decision: Decision | None = None, *, thorough: bool = False
) -> Prepared:
    """Plan for a decision; without one, which takes health, for carrier, rank and weight.
    `thorough` also looks for conflicts with others."""
    config, uplinks, observation = resolved.config, resolved.uplinks, resolved.observation
    facts = observation.facts
    desired = desire(config, as_others_want(observation.state, facts), uplinks, decision)
    desired = with_originals(desired, observation.state, facts)
    lacks = tuple(_lacks(desired, observation.no_balance))
    if lacks:
        desired = replace(desired, hook=None)
    problems: tuple[Problem, ...] = ()
    if thorough:
        found = conflicts.find_conflicts(config, facts, uplinks)
        problems = (*found, *observation.others, *lacks)
    operations = diff(facts, desired, observation.loaded)
    return Prepared(
        observation,
        uplinks,
        desired,
        operations,
        with_new_originals(resolved.state, operations),
        problems,
        config,
        decision or _UNDECIDED,
        lacks,
    )


def prepare_down(observation: Observation) -> Prepared:
    """What takes all of ours away. Needs no config."""
    facts, state = observation.facts, observation.state
    desired = with_originals(Desired(), state, facts)
    operations = diff(facts, desired, observation.loaded)
    return Prepared(observation, (), desired, operations, with_new_originals(state, operations))


def changes(prepared: Prepared) -> Changes:
    """What was prepared, for people."""
    return Changes(
        operations=tuple(map(describe, prepared.operations)),
        pending={u.name: u.pending for u in prepared.uplinks if u.pending},
        problems=prepared.problems,
        tables=dict(prepared.desired.tables),
        ready=sum(not u.pending for u in prepared.uplinks),
        uplinks=len(prepared.uplinks),
    )


def snapshot(observation: Observation) -> Desired:
    """What is ours in the kernel now, as something to come back to."""
    facts = observation.facts
    there = dict(facts.tables)
    now, groups = dict(facts.sysctls), {link.name: link.group for link in facts.links}
    return Desired(
        routes=own_routes(facts),
        rules=own_rules(facts),
        tables=tuple(
            (name, known.text)
            for name, known in observation.loaded
            if name in there and there[name].digest == known.table.digest
        ),
        hook=facts.hook,
        sysctls=tuple((n, now[n]) for n in sorted(now)),
        groups=tuple((dev, groups[dev]) for dev in sorted(groups)),
    )


def _lacks(desired: Desired, no_balance: str) -> Iterator[Problem]:
    """Warnings: what can't be shared out takes the normal default, and nothing else suffers."""
    if desired.hook is not None and no_balance:
        where = "outgoing.mode" if desired.hook.marks else "outgoing.rule"
        what = f"the normal default takes all, as there can be no hook on connect(): {no_balance}"
        yield Problem(where, what, warning=True)


# --- originals ----------------------------------------------------------------------------


def as_others_want(state: State, facts: Facts) -> Facts:
    """Without the sysctls and link groups that we set. What is desired follows from what others
    want: else it would change with what we do, and a second plan be needed, of which nobody tells.
    """
    sysctls = tuple((n, _others(state.sysctls.get(n), value)) for n, value in facts.sysctls)
    links = tuple(
        replace(link, group=_others(state.groups.get(link.name), link.group))
        for link in facts.links
    )
    return replace(facts, sysctls=sysctls, links=links)


def _others(known: tuple[T, ...] | None, now: T) -> T:
    """The original, where the kernel holds a value of ours."""
    return known[0] if known and now in known[1:] else now


def with_originals(desired: Desired, state: State, facts: Facts) -> Desired:
    """Add the originals of what is no longer wanted, where the kernel still holds our value."""
    now, groups = dict(facts.sysctls), {link.name: link.group for link in facts.links}
    sysctls, wanted_groups = dict(desired.sysctls), dict(desired.groups)
    for name, (original, *ours) in state.sysctls.items():
        if now.get(name) in ours:
            sysctls.setdefault(name, original)
    for dev, (first, *set_to) in state.groups.items():
        if groups.get(dev) in set_to:
            wanted_groups.setdefault(dev, first)
    return replace(
        desired, sysctls=tuple(sorted(sysctls.items())), groups=tuple(sorted(wanted_groups.items()))
    )


def with_new_originals(state: State, operations: tuple[Operation, ...]) -> State:
    """The oldest value stays the original, whoever changed it since; what the kernel holds of
    ours until the operation is done is ours as well."""
    sysctls, groups = dict(state.sysctls), dict(state.groups)
    for operation in operations:
        match operation:
            case SetSysctl(name, value, was):
                sysctls[name] = (*sysctls.get(name, (was,)), value)
            case SetGroup(dev, group, was_group):
                groups[dev] = (*groups.get(dev, (was_group,)), group)
    return replace(state, sysctls=sysctls, groups=groups)


def settled(state: State, facts: Facts) -> State:
    """Without what has its original again, and each with the one value of ours that it holds."""
    groups = {link.name: link.group for link in facts.links}
    return replace(
        state,
        sysctls=_settled(state.sysctls, dict(facts.sysctls)),
        groups=_settled(state.groups, groups),
    )


def _settled(known: Mapping[str, tuple[T, ...]], now: Mapping[str, T]) -> dict[str, tuple[T, ...]]:
    kept = {}
    for name, (first, *ours) in known.items():
        value = now.get(name)
        if value != first:
            kept[name] = (first, value) if value in ours else (first, *ours)
    return kept

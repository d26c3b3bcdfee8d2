"""From the observed host to the operations to perform: resolve, then prepare.

    config, Observation ──resolve──> Resolved ──(the caller decides)──> prepare ──> Prepared

Rules: pure; all that is read is in the Observation. The original of a sysctl or link group is its
value before our first change, never one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ifdefault.model.changes import Changes
from ifdefault.model.config import Config, OutgoingRule
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Question
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Desired, Facts, Loaded, Operation, SetGroup, SetSysctl, Uplink
from ifdefault.plan import conflicts, numbers, self_check
from ifdefault.plan.describe import describe
from ifdefault.plan.desired import desire, resolve_uplinks
from ifdefault.plan.diff import diff, own_routes, own_rules
from ifdefault.plan.lookup import Fib

T = TypeVar("T")
_NO_CONFIG, _UNDECIDED = Config(()), Decision()


@dataclass(frozen=True, slots=True)
class Resolved:
    """The uplinks of a config on the observed host. `config` has an additional outgoing rule for
    each command run by `ifdefault exec`; `state` has the uplinks' numbers."""

    config: Config
    observation: Observation
    state: State
    uplinks: tuple[Uplink, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A complete plan, before the first change. `state` must be saved before that."""

    observation: Observation
    uplinks: tuple[Uplink, ...]
    desired: Desired
    operations: tuple[Operation, ...]
    state: State
    problems: tuple[Problem, ...] = ()
    config: Config = _NO_CONFIG
    decision: Decision = _UNDECIDED  # the running daemon's
    lacks: tuple[Problem, ...] = ()  # configured, but not possible on this host or for this process
    questions: tuple[Question, ...] = ()  # of the self-check, once the kernel is as desired

    @property
    def facts(self) -> Facts:
        return self.observation.facts

    @property
    def loaded(self) -> Loaded:
        return self.observation.loaded


def resolve(config: Config, observation: Observation) -> Resolved:
    """Raises ConfigError, see `desired.resolve_uplinks`."""
    cgroups = dict(observation.groups)
    runs = {path: u for path, u in observation.state.runs.items() if cgroups.get(path)}
    numbering = numbers.assign([u.name for u in config.uplinks], observation.state.numbers)
    if runs:  # rules of commands precede those of the config
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
    """Plan for a decision; without one, uplinks are ordered by carrier, rank and weight instead of
    by health. `thorough` also looks for conflicts with other programs."""
    config, uplinks, observation = resolved.config, resolved.uplinks, resolved.observation
    facts = observation.facts
    desired = desire(config, without_own_settings(observation.state, facts), uplinks, decision)
    desired = with_originals(desired, observation.state, facts)
    lacks = tuple(_lacks(desired, observation.no_balance))
    if lacks:
        desired = replace(desired, hook=None)
    questions = self_check.questions(config, facts, uplinks, desired)
    problems: tuple[Problem, ...] = ()
    if thorough:
        own = conflicts.find_conflicts(config, facts, uplinks)
        then = self_check.predicted(config, facts, desired)
        answers = self_check.ask(Fib.of(then), questions)
        astray = self_check.find(config, then, uplinks, answers, decision)
        problems = (*own, *astray, *observation.others, *lacks)
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
        questions,
    )


def prepare_down(observation: Observation) -> Prepared:
    """Plan to remove everything of ours. Needs no config."""
    facts, state = observation.facts, observation.state
    desired = with_originals(Desired(), state, facts)
    operations = diff(facts, desired, observation.loaded)
    return Prepared(observation, (), desired, operations, with_new_originals(state, operations))


def changes(prepared: Prepared) -> Changes:
    """The plan in the form that is shown to users."""
    return Changes(
        operations=tuple(map(describe, prepared.operations)),
        pending={u.name: u.pending for u in prepared.uplinks if u.pending},
        problems=prepared.problems,
        tables=dict(prepared.desired.tables),
        ready=sum(not u.pending for u in prepared.uplinks),
        uplinks=len(prepared.uplinks),
    )


def snapshot(observation: Observation) -> Desired:
    """Our objects that are in the kernel now, as a desired state for rollback."""
    facts = observation.facts
    current = dict(facts.tables)
    now, groups = dict(facts.sysctls), {link.name: link.group for link in facts.links}
    return Desired(
        routes=own_routes(facts),
        rules=own_rules(facts),
        tables=tuple(
            (name, loaded.text)
            for name, loaded in observation.loaded
            if name in current and current[name].digest == loaded.table.digest
        ),
        hook=facts.hook,
        sysctls=tuple((n, now[n]) for n in sorted(now)),
        groups=tuple((dev, groups[dev]) for dev in sorted(groups)),
    )


def _lacks(desired: Desired, no_balance: str) -> Iterator[Problem]:
    """Warnings: without the programs on connect(), connections use the primary uplink; everything
    else works."""
    if desired.hook is not None and no_balance:
        where = "outgoing.mode" if desired.hook.marks else "outgoing.rule"
        what = f"no program on connect() ({no_balance}); all connections use the primary uplink"
        yield Problem(where, what, warning=True)


# --- originals ----------------------------------------------------------------------------


def without_own_settings(state: State, facts: Facts) -> Facts:
    """The facts with the originals of sysctls and link groups that we set. The desired state
    depends on these: otherwise our own changes would change it, and a second plan be needed."""
    sysctls = tuple((n, _original(state.sysctls.get(n), value)) for n, value in facts.sysctls)
    links = tuple(
        replace(link, group=_original(state.groups.get(link.name), link.group))
        for link in facts.links
    )
    return replace(facts, sysctls=sysctls, links=links)


def _original(saved: tuple[T, ...] | None, now: T) -> T:
    """The original if the kernel has a value of ours, otherwise the current value."""
    return saved[0] if saved and now in saved[1:] else now


def with_originals(desired: Desired, state: State, facts: Facts) -> Desired:
    """Add the originals of settings that are no longer needed and still have our value."""
    now, groups = dict(facts.sysctls), {link.name: link.group for link in facts.links}
    sysctls, wanted_groups = dict(desired.sysctls), dict(desired.groups)
    for name, (original, *ours) in state.sysctls.items():
        if now.get(name) in ours:
            sysctls.setdefault(name, original)
    for dev, (original_group, *own_groups) in state.groups.items():
        if groups.get(dev) in own_groups:
            wanted_groups.setdefault(dev, original_group)
    return replace(
        desired, sysctls=tuple(sorted(sysctls.items())), groups=tuple(sorted(wanted_groups.items()))
    )


def with_new_originals(state: State, operations: tuple[Operation, ...]) -> State:
    """Record the originals of the settings that the operations change. The oldest value remains the
    original; earlier values of ours are kept until the operation is done."""
    sysctls, groups = dict(state.sysctls), dict(state.groups)
    for operation in operations:
        match operation:
            case SetSysctl(name, value, was):
                sysctls[name] = (*sysctls.get(name, (was,)), value)
            case SetGroup(dev, group, was_group):
                groups[dev] = (*groups.get(dev, (was_group,)), group)
    return replace(state, sysctls=sysctls, groups=groups)


def settled(state: State, facts: Facts) -> State:
    """Drop settings that have their original value again, and earlier values of ours."""
    groups = {link.name: link.group for link in facts.links}
    return replace(
        state,
        sysctls=_settled(state.sysctls, dict(facts.sysctls)),
        groups=_settled(state.groups, groups),
    )


def _settled(saved: Mapping[str, tuple[T, ...]], now: Mapping[str, T]) -> dict[str, tuple[T, ...]]:
    settled = {}
    for name, (original, *ours) in saved.items():
        value = now.get(name)
        if value != original:
            settled[name] = (original, value) if value in ours else (original, *ours)
    return settled

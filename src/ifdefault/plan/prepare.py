"""From the observed host to the operations to perform: resolve, then prepare.

    config, Observation ──resolve──> Resolved ──(the caller decides)──> prepare ──> Prepared

Rules: pure; all that is read is in the Observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ifdefault.model.changes import Changes
from ifdefault.model.config import Config, OutgoingRule
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Question
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Desired, Facts, Loaded, Operation, Uplink
from ifdefault.plan import conflicts, mptcp, numbers, originals, self_check, settings
from ifdefault.plan.describe import describe
from ifdefault.plan.desired import desire, resolve_uplinks
from ifdefault.plan.diff import diff, own_endpoints, own_routes, own_rules
from ifdefault.plan.lookup import Fib

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
    state = originals.follow(observation.state, observation.facts)
    runs = {path: u for path, u in state.runs.items() if cgroups.get(path)}
    numbering = numbers.assign([u.name for u in config.uplinks], state.numbers)
    if runs:  # rules of commands precede those of the config
        rules = tuple(OutgoingRule(via=(u,), cgroups=(path,)) for path, u in runs.items())
        outgoing = replace(config.outgoing, rules=rules + config.outgoing.rules)
        config = replace(config, outgoing=outgoing)
    return Resolved(
        config,
        observation,
        replace(state, numbers=numbering, runs=runs),
        resolve_uplinks(config, observation.facts, numbering),
    )


def prepare(
    resolved: Resolved, decision: Decision | None = None, *, thorough: bool = False
) -> Prepared:
    """Plan for a decision; without one, uplinks are ordered by carrier, rank and weight instead of
    by health. `thorough` also looks for conflicts with other programs."""
    config, uplinks, observation = resolved.config, resolved.uplinks, resolved.observation
    facts, state = observation.facts, resolved.state
    before = originals.without_own_settings(state, facts)
    desired = desire(config, before, uplinks, decision, observation.public)
    desired, read_only = settings.without_read_only(desired, facts)
    desired = originals.with_originals(desired, state, facts)
    no_mptcp = mptcp.lacks(config, facts)
    lacks = (*_lacks(desired, observation.no_balance), *read_only, *no_mptcp)
    if observation.no_balance:
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
        originals.with_new_originals(state, operations, facts),
        problems,
        config,
        decision or _UNDECIDED,
        lacks,
        questions,
    )


def prepare_down(observation: Observation) -> Prepared:
    """Plan to remove everything of ours. Needs no config."""
    facts = observation.facts
    state = originals.follow(observation.state, facts)
    desired = originals.with_originals(Desired(), state, facts)
    operations = diff(facts, desired, observation.loaded)
    problems = settings.kept_read_only(state, facts)
    state = originals.with_new_originals(state, operations, facts)
    return Prepared(observation, (), desired, operations, state, problems)


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
        endpoints=own_endpoints(facts),
        mptcp_limits=facts.mptcp.limits if facts.mptcp else (),
    )


def _lacks(desired: Desired, no_balance: str) -> Iterator[Problem]:
    """Warnings: without the programs on connect(), connections use the primary uplink; everything
    else works."""
    if desired.hook is not None and no_balance:
        where = "outgoing.mode" if desired.hook.marks else "outgoing.rule"
        what = f"no program on connect() ({no_balance}); all connections use the primary uplink"
        yield Problem(where, what, warning=True)

"""From config to kernel: prepare (read, plan, check), perform, verify; undo on any failure.

Rules: nothing is touched before everything is checked. Undoing is planning too: back to what was
ours before, by the same diff. This module does no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ifdefault.config import placed
from ifdefault.config import read as read_config
from ifdefault.host import exec_groups, routers
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.store import Ruleset, State, Store
from ifdefault.kernel import foreign, nft, sockdiag
from ifdefault.kernel.ebpf import attach
from ifdefault.kernel.perform import Performer
from ifdefault.kernel.read import read_facts
from ifdefault.model.config import Config
from ifdefault.model.errors import HostError, KernelError, Problem
from ifdefault.model.health import Decision
from ifdefault.model.kernel import (
    FORWARD_TABLE,
    NFT_TABLE,
    AddRule,
    Desired,
    Facts,
    LoadNft,
    NftTable,
    Operation,
    PutHook,
    PutRoute,
    Route,
    Rule,
    SetGroup,
    SetSysctl,
    Uplink,
)
from ifdefault.plan import conflicts, numbers
from ifdefault.plan.describe import describe
from ifdefault.plan.desired import plan
from ifdefault.plan.diff import diff, own_routes, own_rules

T = TypeVar("T")
Before = Callable[[Operation], None]


def _ignore(_: Operation) -> None:
    pass


_NONE, _NO_CONFIG, _UNDECIDED = Ruleset(), Config(()), Decision()


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before the first change."""

    facts: Facts
    state: State
    ruleset: Ruleset  # as loaded last
    uplinks: tuple[Uplink, ...]
    desired: Desired
    operations: tuple[Operation, ...]
    problems: tuple[Problem, ...] = ()
    services: Ruleset = _NONE  # as loaded last
    config: Config = _NO_CONFIG
    decision: Decision = _UNDECIDED  # the running daemon's
    lacks: tuple[Problem, ...] = ()  # what the config wants and this host, or process, can't do


def prepare(
    config_path: Path, store: Store, *, thorough: bool = True, decision: Decision | None = None
) -> Prepared:
    """Read config and kernel, and plan. ConfigError for the config's faults, all in one run.

    `thorough` also looks for conflicts with others; without it nothing is read that the plan
    itself doesn't need. `decision` is the running daemon's, if one runs.
    """
    config = read_config(config_path)
    prepared = prepare_config(config, store, thorough=thorough, decision=decision)
    return replace(prepared, problems=placed(config_path, prepared.problems))


def prepare_config(
    config: Config,
    store: Store,
    *,
    thorough: bool = True,
    decision: Decision | None = None,
    routers_seen: RoutersSeen | None = None,
) -> Prepared:
    """The same of a config that was read. With `routers_seen` no router is waited for."""
    state = store.load()
    config = exec_groups.with_runs(config, state)
    problems: tuple[Problem, ...] = ()
    facts = read_facts()
    if thorough:
        facts = _with_others(facts)
    if routers_seen is None:
        facts = routers.with_known_routers(config, facts)
    else:
        facts = routers_seen.completed(config, facts)
    state.numbers = numbers.assign([u.name for u in config.uplinks], state.numbers)
    planned = plan(config, facts, state.numbers, decision)
    desired = with_originals(planned.desired, state, facts)
    lacks = tuple(_lacks(desired))
    if lacks:
        desired = replace(desired, hook=None)
    if thorough:
        found = conflicts.find_conflicts(config, facts, planned.uplinks)
        problems = (*found, *foreign.networkd_problems(), *lacks)
    ruleset, services = store.load_ruleset(), store.load_ruleset(FORWARD_TABLE)
    operations = diff(facts, desired, nft.digest, ruleset.table, services.table)
    return Prepared(
        facts,
        state,
        ruleset,
        planned.uplinks,
        desired,
        operations,
        problems,
        services,
        config,
        decision or _UNDECIDED,
        lacks,
    )


def _with_others(facts: Facts) -> Facts:
    """Add what conflicts with others are told by."""
    ruleset = nft.ruleset_json()
    return replace(
        facts,
        foreign_marks=foreign.foreign_marks(ruleset),
        listening=sockdiag.listening(),
        dropping=foreign.dropping_chains(ruleset),
    )


def _lacks(desired: Desired) -> Iterator[Problem]:
    """Warnings: what can't be shared out takes the normal default, and nothing else suffers."""
    if desired.hook is not None and (why := attach.unavailable()):
        where = "outgoing.mode" if desired.hook.marks else "outgoing.rule"
        what = f"the normal default takes all, as there can be no hook on connect(): {why}"
        yield Problem(where, what, warning=True)


def lay_hook(config: Config, store: Store) -> None:
    """Bring the hook to what config and state say, and what it needs; all else stays as it is."""
    with store.lock(wait=True), Performer() as performer:
        for operation in prepare_config(config, store, thorough=False).operations:
            match operation:
                case PutHook() | AddRule(Rule(action="unreachable", src="")):
                    _perform_one(performer, operation)


def prepare_down(store: Store) -> Prepared:
    """What takes all of ours away. Needs no config."""
    state, facts = store.load(), read_facts()
    desired = with_originals(Desired(), state, facts)
    operations = diff(facts, desired, nft.digest)
    services = store.load_ruleset(FORWARD_TABLE)
    return Prepared(facts, state, store.load_ruleset(), (), desired, operations, services=services)


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


def snapshot(facts: Facts, ruleset: Ruleset, services: Ruleset = _NONE) -> Desired:
    """What is ours in the kernel now, as something to come back to."""
    now, groups = dict(facts.sysctls), {link.name: link.group for link in facts.links}
    return Desired(
        routes=own_routes(facts),
        rules=own_rules(facts),
        nft=_known(facts.nft, ruleset),
        services=_known(facts.services, services),
        hook=facts.hook,
        sysctls=tuple((n, now[n]) for n in sorted(now)),
        groups=tuple((dev, groups[dev]) for dev in sorted(groups)),
    )


def _known(there: NftTable | None, ruleset: Ruleset) -> str:
    """The text of a table that stands, if it is the one that we loaded last."""
    known = there is not None and there.digest == nft.digest(ruleset.text)
    return ruleset.text if known else ""


def commit(prepared: Prepared, store: Store, before: Before = _ignore) -> None:
    """Perform what was prepared, under the store's lock; verify it, or undo it and raise."""
    errors = [p for p in prepared.problems if p.blocks and not p.warning]
    if errors:
        raise HostError(*errors)
    for operation in prepared.operations:
        if isinstance(operation, LoadNft):
            nft.check(operation.text, operation.table)
    came_from = snapshot(prepared.facts, prepared.ruleset, prepared.services)
    state = _with_new_originals(prepared)
    store.save(state)
    try:
        _perform(prepared, before)
        facts = read_facts()
        left = diff(facts, prepared.desired, nft.digest)
        if left:
            raise KernelError(_unlike(left))
    except (KernelError, HostError) as error:
        raise _undone(error, came_from, store) from error
    except BaseException:  # Ctrl-C, or a fault of our own
        return_to(came_from, store)
        raise
    _note(store, state, facts, prepared.desired)


def converge(prepared: Prepared, store: Store) -> tuple[Problem, ...]:
    """Perform what was prepared, as far as the kernel takes it; return what it refused.

    For a daemon, which sees the kernel's every change and plans again: a link that dies meanwhile
    must not keep the default from moving away from it, and nothing is undone.
    """
    state = _with_new_originals(prepared)
    store.save(state)
    refused: list[Problem] = []
    with Performer() as performer:
        for operation in prepared.operations:
            try:
                _perform_one(performer, operation, _key(operation, prepared.uplinks))
            except (KernelError, HostError) as error:
                refused += error.problems
    _note(store, state, read_facts(), prepared.desired)
    return tuple(refused)


def _perform(prepared: Prepared, before: Before) -> None:
    with Performer() as performer:
        for operation in prepared.operations:
            before(operation)
            _perform_one(performer, operation, _key(operation, prepared.uplinks))


def _perform_one(performer: Performer, operation: Operation, key: str = "") -> None:
    try:
        performer.perform(operation)
    except KernelError as error:
        where = key + describe(operation).partition("  #")[0]
        raise KernelError(*(replace(p, where=where) for p in error.problems)) from error


def _key(operation: Operation, uplinks: tuple[Uplink, ...]) -> str:
    """The config's name for what an operation is about, as the head of a message."""
    match operation:
        case PutRoute(Route(table=table)) | AddRule(Rule(table=table)):
            found = [u.name for u in uplinks if u.table == table]
        case SetGroup(dev=dev):
            found = [u.name for u in uplinks if u.interface == dev]
        case _:
            found = []
    return f"uplink.{found[0]}: " if found else ""


def _with_new_originals(prepared: Prepared) -> State:
    """The oldest value stays the original, whoever changed it since; what the kernel holds of
    ours until the operation is done is ours as well."""
    state = prepared.state
    for operation in prepared.operations:
        match operation:
            case SetSysctl(name, value, was):
                state.sysctls[name] = (*state.sysctls.get(name, (was,)), value)
            case SetGroup(dev, group, was_group):
                state.groups[dev] = (*state.groups.get(dev, (was_group,)), group)
    return state


def _note(store: Store, state: State, facts: Facts, target: Desired) -> None:
    """Remember how things stand after a change."""
    for name, text, there in (
        (NFT_TABLE, target.nft, facts.nft),
        (FORWARD_TABLE, target.services, facts.services),
    ):
        found = there or NftTable()
        store.save_ruleset(Ruleset(text, found.digest, found.listing), name)
    state.sysctls = _settled(state.sysctls, dict(facts.sysctls))
    state.groups = _settled(state.groups, {link.name: link.group for link in facts.links})
    exec_groups.sweep(state)
    store.save(state)


def _settled(known: dict[str, tuple[T, ...]], now: dict[str, T]) -> dict[str, tuple[T, ...]]:
    """Without what has its original again, and each with the one value of ours that it holds."""
    kept = {}
    for name, (first, *ours) in known.items():
        value = now.get(name)
        if value != first:
            kept[name] = (first, value) if value in ours else (first, *ours)
    return kept


def return_to(target: Desired, store: Store) -> None:
    """Bring back an earlier state of ours (see `snapshot`), as much of it as the kernel takes;
    KernelError tells what it refused."""
    facts = read_facts()
    there = {link.name for link in facts.links}
    routes = tuple(r for r in target.routes if all(hop.dev in there for hop in r.hops))
    target = replace(target, routes=routes)
    refused: list[Problem] = []
    with Performer() as performer:
        for operation in diff(facts, target, nft.digest):
            try:
                _perform_one(performer, operation)
            except KernelError as error:
                refused += error.problems
    facts = read_facts()
    _note(store, store.load(), facts, target)
    if left := diff(facts, target, nft.digest):
        refused.append(_unlike(left))
    if refused:
        raise KernelError(*refused)


def _unlike(left: tuple[Operation, ...]) -> Problem:
    return Problem("verify", f"the kernel still differs, it lacks: {describe(left[0])}")


def _undone(error: KernelError | HostError, came_from: Desired, store: Store) -> KernelError:
    try:
        return_to(came_from, store)
    except (KernelError, HostError) as worse:
        return KernelError(*error.problems, *worse.problems, "and undoing it failed as well")
    return KernelError(*error.problems, "everything was put back as it was")

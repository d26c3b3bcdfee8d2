"""From config to kernel: prepare (read, plan, check), perform, verify; undo on any failure.

Rules: nothing is touched before everything is checked. Undoing is planning too: back to what was
ours before, by the same diff. This module does no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ifdefault.config import read as read_config
from ifdefault.config import with_lines
from ifdefault.host import exec_groups
from ifdefault.host.observe import observe
from ifdefault.host.store import Store
from ifdefault.kernel import nft
from ifdefault.kernel.perform import Performer
from ifdefault.kernel.read import read_facts
from ifdefault.model.config import Config
from ifdefault.model.errors import HostError, KernelError, Problem
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import (
    AddRule,
    Desired,
    Facts,
    Loaded,
    LoadNft,
    Operation,
    PutHook,
    PutRoute,
    Route,
    Rule,
    SetGroup,
    Uplink,
)
from ifdefault.plan import prepare as planning
from ifdefault.plan.describe import describe
from ifdefault.plan.diff import diff, record_tables
from ifdefault.plan.prepare import Prepared, resolve, settled, snapshot

Before = Callable[[Operation], None]


def _ignore(_: Operation) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Done:
    """The host after what was performed, and what of it the kernel refused. `ports` are the netlink
    ports that asked for it, by which the kernel's news of it are told from others'."""

    observation: Observation
    refused: tuple[Problem, ...]
    ports: frozenset[int]


def prepare(
    config_path: Path, store: Store, *, thorough: bool = True, decision: Decision | None = None
) -> Prepared:
    """Read config and kernel, and plan. ConfigError for the config's faults, all in one run.

    `thorough` also looks for conflicts with others; without it nothing is read that the plan
    itself doesn't need. `decision` is the running daemon's, if one runs.
    """
    config = read_config(config_path)
    prepared = prepare_config(config, store, thorough=thorough, decision=decision)
    return replace(prepared, problems=with_lines(config_path, prepared.problems))


def prepare_config(
    config: Config, store: Store, *, thorough: bool = True, decision: Decision | None = None
) -> Prepared:
    """The same of a config that was read."""
    observation = observe(config, store, thorough=thorough)
    return planning.prepare(resolve(config, observation), decision, thorough=thorough)


def prepare_down(store: Store) -> Prepared:
    """What takes all of ours away. Needs no config."""
    observation = Observation(read_facts(), store.load(), store.load_tables())
    return planning.prepare_down(observation)


def lay_hook(config: Config, store: Store) -> None:
    """Bring the hook to what config and state say, and what it needs; all else stays as it is. The
    caller holds the store's lock."""
    with Performer() as performer:
        for operation in prepare_config(config, store, thorough=False).operations:
            match operation:
                case PutHook() | AddRule(Rule(action="unreachable", src="")):
                    _perform_one(performer, operation)


def commit(prepared: Prepared, store: Store, before: Before = _ignore) -> Done:
    """Perform what was prepared, under the store's lock; verify it, or undo it and raise."""
    errors = [p for p in prepared.problems if p.blocks and not p.warning]
    if errors:
        raise HostError(*errors)
    for operation in prepared.operations:
        if isinstance(operation, LoadNft):
            nft.check(operation.table, operation.text)
    came_from = snapshot(prepared.observation)
    store.save(prepared.state)
    try:
        ports = _perform(prepared, before)
        facts = read_facts()
        left = diff(facts, prepared.desired, record_tables(facts, prepared.desired))
        if left:
            raise KernelError(_unlike(left))
    except (KernelError, HostError) as error:
        raise _undone(error, came_from, store) from error
    except BaseException:  # Ctrl-C, or a fault of our own
        return_to(came_from, store)
        raise
    return Done(_noted(prepared, store, facts), (), ports)


def converge(prepared: Prepared, store: Store) -> Done:
    """Perform what was prepared, as far as the kernel takes it.

    For a daemon, which sees the kernel's every change and plans again: a link that dies meanwhile
    must not keep the default from moving away from it, and nothing is undone.
    """
    store.save(prepared.state)
    refused: list[Problem] = []
    with Performer() as performer:
        for operation in prepared.operations:
            try:
                _perform_one(performer, operation, _key(operation, prepared.uplinks))
            except (KernelError, HostError) as error:
                refused += error.problems
    observation = _noted(prepared, store, read_facts())
    return Done(observation, tuple(refused), performer.ports)


def _noted(prepared: Prepared, store: Store, facts: Facts) -> Observation:
    """What was performed is remembered; the host as it is then."""
    state, loaded = _note(store, prepared.state, facts, prepared.desired)
    return replace(prepared.observation, facts=facts, state=state, loaded=loaded)


def _perform(prepared: Prepared, before: Before) -> frozenset[int]:
    with Performer() as performer:
        for operation in prepared.operations:
            before(operation)
            _perform_one(performer, operation, _key(operation, prepared.uplinks))
    return performer.ports


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


def _note(store: Store, state: State, facts: Facts, target: Desired) -> tuple[State, Loaded]:
    """Remember how things stand after a change."""
    loaded = record_tables(facts, target)
    store.save_tables(loaded)
    state = settled(exec_groups.swept(state), facts)
    store.save(state)
    return state, loaded


def return_to(target: Desired, store: Store) -> None:
    """Bring back an earlier state of ours (see `snapshot`), as much of it as the kernel takes;
    KernelError tells what it refused."""
    facts = read_facts()
    there = {link.name for link in facts.links}
    routes = tuple(r for r in target.routes if all(hop.dev in there for hop in r.hops))
    target = replace(target, routes=routes)
    refused: list[Problem] = []
    with Performer() as performer:
        for operation in diff(facts, target, store.load_tables()):
            try:
                _perform_one(performer, operation)
            except KernelError as error:
                refused += error.problems
    facts = read_facts()
    _note(store, store.load(), facts, target)
    if left := diff(facts, target, record_tables(facts, target)):
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

"""From config to kernel: prepare (read, plan, check), perform, verify; undo on any failure.

Rules: nothing is changed before everything is checked. Undoing is planned by the same diff, with
our previous state as the target. This module does no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ifdefault.config import with_lines
from ifdefault.host import exec_groups
from ifdefault.host.last_config import ConfigFile
from ifdefault.host.observe import ask, observe
from ifdefault.host.store import Store
from ifdefault.kernel import nft
from ifdefault.kernel.perform import Performer
from ifdefault.kernel.read import read_facts
from ifdefault.model.config import Config
from ifdefault.model.errors import HostError, KernelError, Problem
from ifdefault.model.flow import Answers, Question, RouteReply
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import (
    PROTOCOL,
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
    SetSysctl,
    Uplink,
)
from ifdefault.model.mptcp import DeleteEndpoint, PutEndpoint, SetMptcpLimit, uplink_number
from ifdefault.plan import prepare as planning
from ifdefault.plan import self_check
from ifdefault.plan.describe import describe
from ifdefault.plan.diff import diff, record_tables
from ifdefault.plan.originals import follow, followed, indexes, settled, with_new_originals
from ifdefault.plan.prepare import Prepared, resolve, snapshot
from ifdefault.plan.recover import recover
from ifdefault.plan.scope import of_return, of_state, scope

Before = Callable[[Operation], None]
_ATTEMPTS = 3
_OPTIONAL = (SetMptcpLimit, PutEndpoint, DeleteEndpoint)


def _ignore(_: Operation) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Outcome:
    """The host after the operations, and the operations that the kernel refused. `ports` are the
    netlink ports that they were sent from, which identify our own changes in notifications."""

    observation: Observation
    refused: tuple[Problem, ...]
    ports: frozenset[int]


def prepare(
    config_path: Path,
    store: Store,
    *,
    thorough: bool = True,
    decision: Decision | None = None,
    rights: bool = True,
) -> Prepared:
    """Read config and kernel, and plan. ConfigError has all errors of the config.

    `thorough` also looks for conflicts with other programs; without it only what the plan needs is
    read. `decision` is that of the daemon, if one runs. `rights`: as in `read_facts`.
    """
    file = ConfigFile(config_path, store)
    return prepare_file(file, store, thorough=thorough, decision=decision, rights=rights)


def prepare_file(
    file: ConfigFile,
    store: Store,
    *,
    last_good: bool = False,
    thorough: bool = True,
    decision: Decision | None = None,
    rights: bool = True,
) -> Prepared:
    """The same with `last_good`: if the config is invalid, with the last one that worked."""
    config = file.read_or_last() if last_good else file.read()
    prepared = prepare_config(config, store, thorough=thorough, decision=decision, rights=rights)
    if file.errors:  # it isn't the file's
        return prepared
    return replace(prepared, problems=with_lines(file.path, prepared.problems))


def prepare_config(
    config: Config,
    store: Store,
    *,
    thorough: bool = True,
    decision: Decision | None = None,
    rights: bool = True,
) -> Prepared:
    """The same for a config that has been read."""
    observation = observe(config, store, thorough=thorough, strays=thorough, rights=rights)
    return planning.prepare(resolve(config, observation), decision, thorough=thorough)


def prepare_down(store: Store) -> Prepared:
    """Plan the removal of everything of ours. Needs no config."""
    saved = store.load()
    facts = read_facts(of_state(saved))
    observation = Observation(facts, recover(saved, facts), store.load_tables())
    return planning.prepare_down(observation)


def install_hook(config: Config, store: Store) -> None:
    """Install the eBPF programs and the rules that they need, as config and state require, and
    nothing else. The caller holds the store's lock."""
    prepared = prepare_config(config, store, thorough=False)
    with Performer(indexes(prepared.facts)) as performer:
        for operation in prepared.operations:
            match operation:
                case PutHook() | AddRule(Rule(action="unreachable", src="")):
                    _perform_one(performer, operation)


def apply(plan: Callable[[], Prepared], store: Store, before: Before = _ignore) -> Prepared:
    """Prepare and commit; and again if the network changed meanwhile: the kernel refuses what was
    planned for an interface that is down now. The caller holds the store's lock."""
    for left in reversed(range(_ATTEMPTS)):
        prepared = plan()
        try:
            commit(prepared, store, before)
        except KernelError:
            now = read_facts(scope(prepared.config, prepared.state))
            if not left or _network(now) == _network(prepared.facts):
                raise
        else:
            break
    return prepared


def _network(facts: Facts) -> tuple[object, ...]:
    """What others decide, and our routes depend on."""
    links = {(link.index, link.name, link.up, link.carrier) for link in facts.links}
    routes = {route for route in facts.routes if route.protocol != PROTOCOL}
    return links, frozenset(facts.addresses), routes


def commit(prepared: Prepared, store: Store, before: Before = _ignore) -> Outcome:
    """Perform the prepared operations and verify them, or undo them and raise. The caller holds the
    store's lock. What MPTCP is refused is told and left out: everything else works without it."""
    errors = [p for p in prepared.problems if p.blocks and not p.warning]
    if errors:
        raise HostError(*errors)
    for operation in prepared.operations:
        if isinstance(operation, LoadNft):
            nft.check(operation.table, operation.text)
    came_from = snapshot(prepared.observation)
    links = indexes(prepared.facts)
    was = dict(ask(prepared.questions, prepared.facts))
    store.save(prepared.state)
    try:
        ports, refused = _perform(prepared, before)
        facts = read_facts(scope(prepared.config, prepared.state, strays=True))
        left = diff(facts, prepared.desired, record_tables(facts, prepared.desired))
        if left := tuple(op for op in left if not isinstance(op, _OPTIONAL)):
            raise KernelError(_difference(left))
        answers = ask(prepared.questions, facts)
        if lost := _lost(prepared, facts, was, answers):
            raise KernelError(*lost)
    except (KernelError, HostError) as error:
        raise _undo(error, came_from, links, store) from error
    except BaseException:  # Ctrl-C, or a fault of our own
        return_to(came_from, links, store)
        raise
    store.tell(replace(problem, warning=True) for problem in refused)
    return Outcome(_record(prepared, store, facts, answers), refused, ports)


def _lost(
    prepared: Prepared, facts: Facts, was: Mapping[Question, RouteReply], now: Answers
) -> tuple[Problem, ...]:
    """Vital packets that went where they are meant to go before the change, and no longer do.
    Those of an interface or address that disappeared meanwhile don't count."""
    up = {link.name for link in facts.links if link.up and link.carrier}
    there = {address.address for address in facts.addresses}
    devices = {uplink.name: uplink.interface for uplink in prepared.uplinks}
    lost = tuple(
        (question, reply)
        for question, reply in now
        if question.intent in self_check.VITAL
        and question.is_met(was[question])
        and not question.is_met(reply)
        and devices[question.uplink] in up
        and there & {question.flow.src, question.flow.dst}
    )
    return self_check.misrouted(prepared.config, facts, lost)


def converge(prepared: Prepared, store: Store) -> Outcome:
    """Perform the prepared operations, as many as the kernel accepts; nothing is undone.

    For the daemon, which sees every change of the kernel and plans again: a link that goes down
    meanwhile must not prevent the default from moving to another one.
    """
    store.save(prepared.state)
    refused: list[Problem] = []
    with Performer(indexes(prepared.facts)) as performer:
        for operation in prepared.operations:
            try:
                _perform_one(performer, operation, _key(operation, prepared.uplinks))
            except (KernelError, HostError) as error:
                refused += error.problems
    others = any(isinstance(op, SetSysctl | SetGroup) for op in prepared.operations)
    after = None if others else prepared.facts  # with settings, the kernel may change more
    facts = read_facts(scope(prepared.config, prepared.state), after=after)
    observation = _record(prepared, store, facts, ask(prepared.questions, facts))
    return Outcome(observation, tuple(refused), performer.ports)


def _record(prepared: Prepared, store: Store, facts: Facts, answers: Answers) -> Observation:
    """Record what was performed, and return the host as it is now."""
    state, loaded = _save(store, prepared.state, facts, prepared.desired)
    return replace(prepared.observation, facts=facts, state=state, loaded=loaded, answers=answers)


def _perform(prepared: Prepared, before: Before) -> tuple[frozenset[int], tuple[Problem, ...]]:
    refused: list[Problem] = []
    with Performer(indexes(prepared.facts)) as performer:
        for operation in prepared.operations:
            before(operation)
            try:
                _perform_one(performer, operation, _key(operation, prepared.uplinks))
            except KernelError as error:
                if not isinstance(operation, _OPTIONAL):
                    raise
                refused += error.problems
    return performer.ports, tuple(refused)


def _perform_one(performer: Performer, operation: Operation, key: str = "") -> None:
    try:
        performer.perform(operation)
    except KernelError as error:
        where = key + describe(operation).partition("  #")[0]
        raise KernelError(*(replace(p, where=where) for p in error.problems)) from error


def _key(operation: Operation, uplinks: tuple[Uplink, ...]) -> str:
    """The config key that an operation is about, as the beginning of a message."""
    match operation:
        case PutRoute(Route(table=table)) | AddRule(Rule(table=table)):
            names = [u.name for u in uplinks if u.table == table]
        case SetGroup(dev=dev):
            names = [u.name for u in uplinks if u.interface == dev]
        case PutEndpoint(endpoint):
            names = [u.name for u in uplinks if u.number == uplink_number(endpoint.id)]
        case _:
            names = []
    return f"uplink.{names[0]}: " if names else ""


def _save(store: Store, state: State, facts: Facts, target: Desired) -> tuple[State, Loaded]:
    """Save state and tables after a change, which isn't undone because that fails."""
    loaded = record_tables(facts, target)
    state = settled(exec_groups.remove_empty(state), facts)
    with store.tolerating():
        store.save_tables(loaded)
        store.save(state)
    return state, loaded


def return_to(target: Desired, links: Mapping[str, int], store: Store) -> None:
    """Restore an earlier state of ours (see `snapshot`), as much as the kernel accepts; KernelError
    lists what it refused. `links` are the indexes that interfaces had then."""
    state = store.load()
    concerned = of_return(state, target, links)
    facts = read_facts(concerned)
    present = indexes(facts)
    routes = tuple(r for r in target.routes if all(hop.dev in present for hop in r.hops))
    target = replace(followed(target, links, facts), routes=routes)
    operations = diff(facts, target, store.load_tables())
    state = with_new_originals(follow(state, facts), operations, facts)
    refused: list[Problem] = []
    with Performer(present) as performer:
        for operation in operations:
            try:
                _perform_one(performer, operation)
            except KernelError as error:
                refused += error.problems
    facts = read_facts(concerned)
    _save(store, state, facts, target)
    if left := diff(facts, target, record_tables(facts, target)):
        refused.append(_difference(left))
    if refused:
        raise KernelError(*refused)


def _difference(left: tuple[Operation, ...]) -> Problem:
    what = f"the kernel still differs, this is not done: {describe(left[0])}"
    return Problem("verify", what, "find out what removes it, for example with ip monitor")


def _undo(
    error: KernelError | HostError, came_from: Desired, links: Mapping[str, int], store: Store
) -> KernelError:
    try:
        return_to(came_from, links, store)
    except (KernelError, HostError) as worse:
        return KernelError(
            *error.problems,
            *worse.problems,
            "undoing the changes failed as well; run ifdefault down",
        )
    return KernelError(*error.problems, "all changes were undone")

"""Performs effects on the host as a whole: Look, Converge, Commit, and the saved state.

Rules: each function returns an event, a failure too; nothing is raised. A turn holds the store's
lock from its first Look to its end, so that no other ifdefault changes the host between a look and
the change planned from it. It waits for the lock only if the effect says so.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from typing import TypeVar, cast, get_args

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.host import exec_groups
from ifdefault.host.observe import observe
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.store import Store
from ifdefault.host.transaction import Outcome, commit, converge
from ifdefault.kernel.watch import Watch
from ifdefault.model.errors import HostError, IfdefaultError, LockError, Problem
from ifdefault.model.health import Forced
from ifdefault.model.host import Observation
from ifdefault.plan.describe import describe
from ifdefault.plan.prepare import Prepared

_log = logging.getLogger("ifdefault")
T = TypeVar("T")
_RECENT = 16  # transactions whose kernel notifications may not have been read yet


class Host:
    def __init__(self, store: Store, watch: Watch) -> None:
        self.routers = RoutersSeen()
        self._store, self._watch = store, watch
        self._ports: deque[frozenset[int]] = deque(maxlen=_RECENT)
        self._turn = ExitStack()
        self._locked = False

    def end_turn(self) -> None:
        self._turn.close()
        self._locked = False

    def _lock(self, *, wait: bool) -> None:
        if not self._locked:
            self._turn.enter_context(self._store.lock(wait=wait))
            self._locked = True

    # --- the kernel -----------------------------------------------------------------------

    def look(self, effect: f.Look) -> e.Observed | e.LookFailed:
        def read() -> e.Observed:
            start_s = monotonic()
            observation = observe(
                effect.config,
                self._store,
                thorough=effect.thorough,
                routers_seen=self.routers,
                questions=effect.questions,
            )
            return e.Observed(observation, monotonic() - start_s)

        return self._try(read, wait=effect.wait)

    def converge(self, effect: f.Converge) -> e.Applied | e.LookFailed:
        def perform() -> e.Applied:
            start_s = monotonic()
            _log_operations(effect.prepared)
            done = converge(effect.prepared, self._store)
            observation = self._observation(effect.prepared, done)
            return e.Applied(observation, monotonic() - start_s, done.refused)

        return self._try(perform, wait=False)

    def commit(self, effect: f.Commit) -> e.Committed | e.CommitFailed:
        def perform() -> e.Committed:
            start_s = monotonic()
            _log_operations(effect.prepared)
            done = commit(effect.prepared, self._store)
            observation = self._observation(effect.prepared, done)
            return e.Committed(observation, monotonic() - start_s)

        outcome = self._try(perform, wait=True)
        return e.CommitFailed(outcome.problems) if isinstance(outcome, e.LookFailed) else outcome

    def _observation(self, prepared: Prepared, done: Outcome) -> Observation:
        """The kernel's news of what was done are ours; routers that are silent just now are told
        apart all the same."""
        self._ports.append(done.ports)
        self._watch.own_ports = frozenset().union(*self._ports)
        facts = self.routers.completed(prepared.config, done.observation.facts)
        return replace(done.observation, facts=facts)

    def _try(self, do: Callable[[], T], *, wait: bool) -> T | e.LookFailed:
        try:
            self._lock(wait=wait)
            return do()
        except LockError as error:  # another ifdefault is changing the host
            return e.LookFailed(error.problems, locked=True)
        except IfdefaultError as error:
            return e.LookFailed(error.problems)
        except (OSError, KeyError) as error:  # out of memory or files; an interface just removed
            return e.LookFailed((Problem("the kernel", f"can't be read or changed: {error}"),))

    # --- saved state ----------------------------------------------------------------------

    def load_forced(self) -> tuple[tuple[str, Forced], ...]:
        """The forced states of uplinks; those that this version doesn't know are skipped."""
        known, forced = get_args(Forced), self._store.load().forced
        return tuple((n, cast(Forced, state)) for n, state in forced.items() if state in known)

    def save_forced(self, effect: f.SaveForced) -> e.ForcedSaved:
        try:
            self._lock(wait=True)
            state = self._store.load()
            forced = {**state.forced, effect.uplink: effect.state}
            forced = {name: how for name, how in forced.items() if how != "auto"}
            self._store.save(replace(state, forced=forced))
        except IfdefaultError as error:
            return e.ForcedSaved(effect.id, error.problems)
        return e.ForcedSaved(effect.id)

    # --- exec -----------------------------------------------------------------------------

    def enter_group(self, effect: f.EnterGroup) -> e.GroupEntered:
        try:
            self._lock(wait=True)
            path, was = exec_groups.enter(self._store, effect.pid, effect.uid, effect.uplink)
        except IfdefaultError as error:
            return e.GroupEntered(effect.id, problems=error.problems)
        return e.GroupEntered(effect.id, path, was)

    def leave_group(self, effect: f.LeaveGroup) -> None:
        try:
            self._lock(wait=True)
            exec_groups.leave(self._store, effect.pid, effect.was)
        except (HostError, OSError) as error:
            _log.warning("exec: process %d stays in its control group: %s", effect.pid, error)


def _log_operations(prepared: Prepared) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        for operation in prepared.operations:
            _log.debug("performing: %s", describe(operation))

"""Performs what concerns the host as a whole: Look, Converge, Commit, and what is kept on disk.

Rules: each effect is answered by the event that is returned; nothing is raised. From its first look
to its end a turn holds the store's lock, so that nobody changes between look and change what was
looked at. Who waits for the lock was asked to.
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
_RECENT = 16  # transactions, whose news may not have been read yet


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

    def look(self, asked: f.Look) -> e.Observed | e.LookFailed:
        def read() -> e.Observed:
            begun_s = monotonic()
            observation = observe(
                asked.config,
                self._store,
                thorough=asked.thorough,
                routers_seen=self.routers,
            )
            return e.Observed(observation, monotonic() - begun_s)

        return self._try(read, wait=asked.wait)

    def converge(self, asked: f.Converge) -> e.Applied | e.LookFailed:
        def perform() -> e.Applied:
            begun_s = monotonic()
            _tell(asked.prepared)
            done = converge(asked.prepared, self._store)
            observation = self._take(asked.prepared, done)
            return e.Applied(observation, monotonic() - begun_s, done.refused)

        return self._try(perform, wait=False)

    def commit(self, asked: f.Commit) -> e.Committed | e.CommitFailed:
        def perform() -> e.Committed:
            begun_s = monotonic()
            _tell(asked.prepared)
            observation = self._take(asked.prepared, commit(asked.prepared, self._store))
            return e.Committed(observation, monotonic() - begun_s)

        done = self._try(perform, wait=True)
        return e.CommitFailed(done.problems) if isinstance(done, e.LookFailed) else done

    def _take(self, prepared: Prepared, done: Outcome) -> Observation:
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
        except LockError as error:  # another ifdefault changes the host
            return e.LookFailed(error.problems, locked=True)
        except IfdefaultError as error:
            return e.LookFailed(error.problems)
        except (OSError, KeyError) as error:  # short of memory or files; an interface just gone
            return e.LookFailed((Problem("the kernel", f"can't be read or changed: {error}"),))

    # --- what is kept ---------------------------------------------------------------------

    def load_forced(self) -> tuple[tuple[str, Forced], ...]:
        """What the operator asked for, as far as this version knows it."""
        known, kept = get_args(Forced), self._store.load().forced
        return tuple((n, cast(Forced, state)) for n, state in kept.items() if state in known)

    def save_forced(self, asked: f.SaveForced) -> e.ForcedSaved:
        try:
            self._lock(wait=True)
            state = self._store.load()
            forced = {**state.forced, asked.uplink: asked.state}
            kept = {name: each for name, each in forced.items() if each != "auto"}
            self._store.save(replace(state, forced=kept))
        except IfdefaultError as error:
            return e.ForcedSaved(asked.id, error.problems)
        return e.ForcedSaved(asked.id)

    # --- exec -----------------------------------------------------------------------------

    def enter_group(self, asked: f.EnterGroup) -> e.GroupEntered:
        try:
            self._lock(wait=True)
            path, was = exec_groups.enter(self._store, asked.pid, asked.uid, asked.uplink)
        except IfdefaultError as error:
            return e.GroupEntered(asked.id, problems=error.problems)
        return e.GroupEntered(asked.id, path, was)

    def leave_group(self, asked: f.LeaveGroup) -> None:
        try:
            self._lock(wait=True)
            exec_groups.leave(self._store, asked.pid, asked.was)
        except (HostError, OSError) as error:
            _log.warning("exec: process %d stays in its group: %s", asked.pid, error)


def _tell(prepared: Prepared) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        for operation in prepared.operations:
            _log.debug("performing: %s", describe(operation))

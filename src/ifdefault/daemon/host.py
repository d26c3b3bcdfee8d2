"""Performs effects on the host as a whole: Look, Converge, Commit, and the saved state.

Rules: each function returns an event, a failure too; nothing is raised. A turn holds the store's
lock from its first Look to its end, so that no other ifdefault changes the host between a look and
the change planned from it. While another process holds it, the loop goes on: an effect that waits
for it is performed, and its event received, later. A process that holds it for more than
`PATIENCE_S` hangs, and is no longer waited for.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic, time
from typing import TypeVar, cast, get_args

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.host import exec_groups
from ifdefault.host.observe import observe
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.host.transaction import Outcome, commit, converge
from ifdefault.ipc import log
from ifdefault.kernel.watch import Watch
from ifdefault.model.errors import HostError, IfdefaultError, LockError, Problem, internal, reason
from ifdefault.model.health import Forced
from ifdefault.model.host import Observation
from ifdefault.plan.describe import describe
from ifdefault.plan.prepare import Prepared

_log = logging.getLogger("ifdefault")
# beside state.json, whose format it leaves as it is: seconds since the epoch, by uplink
DRAINS: StateFile[dict[str, float]] = StateFile(
    "drains.json", dict[str, float], "drains have no timeout any more"
)
T = TypeVar("T")
_RECENT = 16  # transactions whose kernel notifications may not have been read yet
RETRY_S, PATIENCE_S = 0.1, 5.0  # for the lock
_Do = Callable[[], e.Event | None]


class Host:
    """`problems`: for the status. `receive` takes the events of effects that waited."""

    def __init__(self, store: Store, watch: Watch, receive: Callable[[e.Event], None]) -> None:
        self.routers = RoutersSeen()
        self.problems: tuple[str, ...] = ()
        self._store, self._watch, self._receive = store, watch, receive
        self._ports: deque[frozenset[int]] = deque(maxlen=_RECENT)
        self._turn = ExitStack()
        self._locked = False
        self._holder, self._held_s = "", 0.0  # who holds the lock, and since when
        self._waiting: list[_Do] = []

    # --- the lock -------------------------------------------------------------------------

    def end_turn(self) -> None:
        self._turn.close()
        self._locked = False

    def _lock(self) -> None:
        """For the rest of this turn. LockError if another process holds it, and doesn't hang."""
        if self._locked:
            return
        try:
            self._turn.enter_context(self._store.lock())
            self._holder, self.problems = "", ()
        except LockError as error:
            [problem] = error.problems
            if self._holder != problem.what:
                self._holder, self._held_s, self.problems = problem.what, monotonic(), ()
            if monotonic() < self._held_s + PATIENCE_S:
                raise
            if not self.problems:
                text = f"{problem.where}: {problem.what} for more than {PATIENCE_S:g} s"
                self.problems = (f"{text}; the daemon goes on without it, end that process",)
                _log.warning(*self.problems)
        self._locked = True

    def _must_wait(self) -> bool:
        try:
            self._lock()
        except LockError:
            return True
        except HostError:
            pass  # whoever needs the lock reports that it can't be used
        return False

    def _when_free(self, do: _Do) -> e.Event | None:
        """Do this, which takes the lock: now, or as soon as that is possible."""
        if not self._must_wait():
            return do()
        if not self._waiting:
            asyncio.get_running_loop().call_later(RETRY_S, self._retry)
        self._waiting.append(do)
        return None

    def _retry(self) -> None:
        if self._locked or self._must_wait():  # by a turn that hasn't ended, or by others
            asyncio.get_running_loop().call_later(RETRY_S, self._retry)
            return
        waiting, self._waiting = self._waiting, []
        for do in waiting:
            if (outcome := do()) is not None:
                self._receive(outcome)
        self._receive(e.Woke())  # the turn that it begins ends with the lock

    # --- the kernel -----------------------------------------------------------------------

    def look(self, effect: f.Look) -> e.Event | None:
        def read() -> e.Observed:
            start_s = monotonic()
            observation = observe(
                effect.config,
                self._store,
                thorough=effect.thorough,
                strays=effect.strays,
                routers_seen=self.routers,
                questions=effect.questions,
            )
            return e.Observed(observation, monotonic() - start_s)

        if effect.wait:
            return self._when_free(lambda: self._try(read))
        return self._try(read)

    def converge(self, effect: f.Converge) -> e.Applied | e.LookFailed:
        def perform() -> e.Applied:
            start_s = monotonic()
            _log_operations(effect.prepared)
            done = converge(effect.prepared, self._store)
            observation = self._observation(effect.prepared, done)
            return e.Applied(observation, monotonic() - start_s, done.refused)

        return self._try(perform)

    def commit(self, effect: f.Commit) -> e.Committed | e.CommitFailed:
        def perform() -> e.Committed:
            start_s = monotonic()
            _log_operations(effect.prepared)
            done = commit(effect.prepared, self._store)
            observation = self._observation(effect.prepared, done)
            return e.Committed(observation, monotonic() - start_s)

        outcome = self._try(perform)
        return e.CommitFailed(outcome.problems) if isinstance(outcome, e.LookFailed) else outcome

    def _observation(self, prepared: Prepared, done: Outcome) -> Observation:
        """The kernel's news of what was done are ours; routers that are silent just now are told
        apart all the same."""
        self._ports.append(done.ports)
        self._watch.own_ports = frozenset().union(*self._ports)
        facts = self.routers.completed(prepared.config, done.observation.facts)
        return replace(done.observation, facts=facts)

    def _try(self, do: Callable[[], T]) -> T | e.LookFailed:
        try:
            self._lock()
            return do()
        except LockError as error:  # another ifdefault is changing the host
            return e.LookFailed(error.problems, locked=True)
        except IfdefaultError as error:
            return e.LookFailed(error.problems)
        except (OSError, KeyError) as error:  # out of memory or files; an interface just removed
            why = reason(error) if isinstance(error, OSError) else f"{error} isn't there any more"
        except Exception as error:  # repeated later, with growing pauses
            log.exception(error, "the kernel")
            why = internal(error)
        return e.LookFailed((Problem("the kernel", f"can't be read or changed: {why}"),))

    # --- saved state ----------------------------------------------------------------------

    def load_forced(self) -> tuple[tuple[str, Forced], ...]:
        """The forced states of uplinks; those that this version doesn't know are skipped."""
        known, forced = get_args(Forced), self._store.load().forced
        return tuple((n, cast(Forced, state)) for n, state in forced.items() if state in known)

    def save_forced(self, effect: f.SaveForced) -> e.Event | None:
        return self._when_free(lambda: self._save_forced(effect))

    def _save_forced(self, effect: f.SaveForced) -> e.ForcedSaved:
        try:
            self._lock()
            state = self._store.load()
            forced = {**state.forced, effect.uplink: effect.state}
            forced = {name: how for name, how in forced.items() if how != "auto"}
            self._save_drain(effect)
            self._store.save(replace(state, forced=forced))
        except IfdefaultError as error:
            return e.ForcedSaved(effect.id, error.problems)
        return e.ForcedSaved(effect.id)

    def load_drains(self) -> tuple[tuple[str, float], ...]:
        """How long drains go on, by the clock that the host's restart doesn't reset."""
        forced, now = self._store.load().forced, time()
        until = self._store.read(DRAINS) or {}
        return tuple((n, t - now) for n, t in until.items() if forced.get(n) == "drain")

    def _save_drain(self, effect: f.SaveForced) -> None:
        until = self._store.read(DRAINS) or {}
        changed = {name: t for name, t in until.items() if name != effect.uplink}
        if effect.timeout_s:
            changed[effect.uplink] = time() + effect.timeout_s
        if changed != until:
            self._store.write(DRAINS, changed)

    # --- exec -----------------------------------------------------------------------------

    def enter_group(self, effect: f.EnterGroup) -> e.Event | None:
        return self._when_free(lambda: self._enter_group(effect))

    def _enter_group(self, effect: f.EnterGroup) -> e.GroupEntered:
        pid, uid, uplink = effect.pid, effect.uid, effect.uplink
        try:
            self._lock()
            path, was = exec_groups.enter(self._store, pid, uid, uplink)
        except IfdefaultError as error:
            return e.GroupEntered(effect.id, problems=error.problems)
        _log.debug("exec: process %d of uid %d uses %s", pid, uid, uplink)
        return e.GroupEntered(effect.id, path, was)

    def leave_group(self, effect: f.LeaveGroup) -> None:
        self._when_free(lambda: self._leave_group(effect))

    def _leave_group(self, effect: f.LeaveGroup) -> None:
        try:
            self._lock()
            exec_groups.leave(self._store, effect.pid, effect.was)
        except HostError as error:
            _log.warning("exec: process %d stays in its control group: %s", effect.pid, error)


def require_same_netns(netns: int) -> None:
    """HostError unless this is the inode of our own network namespace."""
    if netns != os.stat("/proc/self/ns/net").st_ino:
        what = "this network namespace is not the daemon's"
        raise HostError(Problem("exec", what, "use --run-dir for the daemon of this one"))


def _log_operations(prepared: Prepared) -> None:
    if _log.isEnabledFor(logging.DEBUG):
        for operation in prepared.operations:
            _log.debug("performing: %s", describe(operation))

"""The controller decides everything the daemon does. It takes events and returns effects.

A failover takes three calls of `receive`, in one turn of the engine:

    ProbeOutcome ──> paths ──> transition ──> decide ──> Look          the decision changed
    Observed ──> update paths ──> decide ──> plan ──> Publish, Converge
    Applied ──> update paths ──> decide ──> EndConnections

Rules:
- One call processes all events first, and then asks for one Look, one plan and one Publish at most.
- A decision depends only on the current state. It is made again whenever that state changes, no
  matter which event reported the change.
- Look, Converge and Commit are answered by events. Until the answer is there, nothing that depends
  on the kernel is done (`Reconciler.awaited`); probing continues.
- Converge and Commit end with reading the host again, so Applied and Committed need no Look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.adopt import Adopter
from ifdefault.daemon.controller.budgets import Budgets
from ifdefault.daemon.controller.commands import Commands
from ifdefault.daemon.controller.decision import Primaries, make_decision
from ifdefault.daemon.controller.effects import SERVER_CHECKS, Effect, ResolveNames, Save
from ifdefault.daemon.controller.full_lines import follow_lines
from ifdefault.daemon.controller.names import Names
from ifdefault.daemon.controller.paths import Paths
from ifdefault.daemon.controller.reconcile import Reconciler
from ifdefault.daemon.controller.returning_connections import ReturningConnections
from ifdefault.daemon.controller.self_check import AGAIN_S, SelfCheck
from ifdefault.daemon.controller.servers import ServerChecks
from ifdefault.daemon.controller.stale_connections import StaleConnections
from ifdefault.daemon.controller.state import State
from ifdefault.daemon.controller.tunnels import Tunnels
from ifdefault.daemon.controller.watch import Watcher
from ifdefault.model.config import Config
from ifdefault.model.errors import ConfigError
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.model.kernel_events import KernelChange
from ifdefault.model.report import DaemonStatus, DnsStatus
from ifdefault.plan.prepare import Prepared, Resolved, prepare, resolve

DEBOUNCE_S = 0.015  # kernel events come in groups
SETTLE_S = 1.0  # after a start the first answers come in any order: no reason for a failover
SAVE_S = 60.0


class Controller:
    def __init__(self) -> None:
        state = self.state = State()
        out = state.out
        self.paths, self.servers, self.names = Paths(out), ServerChecks(out), Names(out)
        self._reconciler, self._self_check = Reconciler(state), SelfCheck(state)
        self._adopter, self._commands = Adopter(state), Commands(state)
        self._stale, self._returning = StaleConnections(state), ReturningConnections(state)
        self._primaries, self._tunnels = Primaries(state), Tunnels(state)
        self._budgets, self._watcher = Budgets(state), Watcher(out)
        self._finish_due = False  # whether names or connections may need an update: `_finish`
        self._refresh_s = inf  # when to update the paths again without any event
        self._servers_due_s = inf  # when to decide after servers went down or came back
        self._save_s = inf
        self._hosts: tuple[str, ...] = ()

    def receive(self, events: Sequence[e.Event], now: float) -> tuple[Effect, ...]:
        """Process events and return the effects to perform, in order. If nothing else happens until
        `wake_s`, call it with `Woke` then."""
        for event in events:
            self._on_event(event, now)
        self._turn(now)
        effects = (*self.state.out, *self.paths.probes, *self.servers.probes)
        for queue in (self.state.out, self.paths.probes, self.servers.probes):
            queue.clear()
        return effects

    @property
    def wake_s(self) -> float:
        """When the next timer expires."""
        state = self.state
        if state.prepared is None:
            return inf
        probe_s = min(self.paths.wake_s, self.servers.wake_s) if self._probing else inf
        if self._reconciler.awaited:
            return probe_s  # everything else waits for the answer
        due_s = min(self._save_s, self._refresh_s, self._servers_due_s, state.settle_until_s)
        due_s = min(due_s, self._returning.wake_s)
        return min(probe_s, due_s, self._commands.wake_s, self._reconciler.wake_s)

    @property
    def _probing(self) -> bool:
        """Whether to send probes. While held, without our routes, they may leave by another one."""
        return self.state.frontend and not self.state.held and self.state.prepared is not None

    # --- events ---------------------------------------------------------------------------

    def _on_event(self, event: e.Event, now: float) -> None:
        state = self.state
        match event:
            case e.ProbeOutcome(path=path):
                if path != SERVER_CHECKS:
                    state.transitions += self.paths.observe(now, event)
                elif self.servers.observe(now, event):
                    self._servers_due_s = min(self._servers_due_s, self._reconciler.paced_s(now))
            case e.Woke():
                pass
            case e.TrafficSeen():
                state.transitions += self.paths.traffic(now, event)
            case e.KernelChanged(changes):
                self._on_kernel_changes(now, changes)
            case e.Observed() | e.LookFailed() | e.Applied() | e.Committed() | e.CommitFailed():
                self._on_host_event(now, event)
            case e.FrontendStarted() | e.FrontendEnded() | e.SocketFailed():
                self._on_frontend_event(now, event)
            case e.NameResolved(host, addresses, error):
                self.paths.resolved(host, addresses, error)
            case _:
                self._on_other_event(now, event)

    def _on_other_event(self, now: float, event: e.Event) -> None:
        state = self.state
        match event:
            case e.SilentlyChanged(groups):
                if not state.refused:  # otherwise the retry timer is running already
                    state.unapplied |= groups  # a change due to a new group is not a repair
                    self._reconciler.look_at(now)
            case e.PublicAddressFound(uplink, family, address):
                self.names.discovered[uplink, family] = address
                self._reconciler.look_at(now)
            case e.ConnectionsEnded():
                self._stale.report(event)
            case e.TrafficCounted():
                follow_lines(state, now, event)
                if self._budgets.observe(event):
                    self._save(now)
            case e.Started():
                self.names.start(event)
                self.paths.memories = {(name, family): m for name, family, m in event.memories}
                self._budgets.restored = event.usage
                state.start(now, event)
            case _:
                self._commands.receive(event, now)
                if self._commands.entering:
                    self._reconciler.look_now(now)

    def _on_kernel_changes(self, now: float, changes: Sequence[KernelChange]) -> None:
        for change in changes:
            transitions, concerns_plan = self.paths.kernel_changed(now, change)
            self.state.transitions += transitions
            if concerns_plan:
                self._reconciler.look_at(now + DEBOUNCE_S)

    def _on_frontend_event(
        self, now: float, event: e.FrontendStarted | e.FrontendEnded | e.SocketFailed
    ) -> None:
        match event:
            case e.FrontendStarted():
                self.state.frontend = True
                if not self.state.settled:
                    self.state.settle_until_s = min(self.state.settle_until_s, now + SETTLE_S)
                self.paths.reopen()
            case e.FrontendEnded():
                self.state.frontend = False
            case e.SocketFailed(path):
                self.paths.socket_failed(now, path)
                self._refresh_s = self.paths.retry_s(now)

    def _on_host_event(
        self,
        now: float,
        event: e.Observed | e.LookFailed | e.Applied | e.Committed | e.CommitFailed,
    ) -> None:
        """The answer to Look, Converge or Commit."""
        reconciler, adopter, state = self._reconciler, self._adopter, self.state
        match event:
            case e.Observed(observation, took_s):
                reconciler.looked(now, took_s)
                reconciler.observed = observation
            case e.LookFailed(problems):
                reconciler.look_failed(now, event)
                self._commands.answer_entered(now)
                self._finish_due = True
                if adopter.current:
                    adopter.failed(now, problems)
            case e.Applied(observation):
                assert state.prepared is not None
                reconciler.applied(now, event, state.prepared)
                self._update_after_apply(now, replace(state.prepared, observation=observation))
            case e.Committed(observation, took_s):
                reconciler.looked(now, took_s)
                self._update_after_apply(now, adopter.committed(now, observation))
            case e.CommitFailed(problems):
                reconciler.looked(now, 0.0)
                reconciler.look_at(now)
                adopter.failed(now, problems)

    # --- a turn ---------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        state, reconciler = self.state, self._reconciler
        if self._probing and now >= min(self.paths.wake_s, self.servers.wake_s):
            state.transitions += self.paths.send_due(now)
            state.decision_due |= self.paths.check_unproven()
            self.servers.send_due(now)
        self._report_transitions()
        if reconciler.awaited:
            return
        self._commands.check_timers(now)
        if reconciler.observed and self._plan(now, reconciler.observed):
            return
        if self._adopter.begin(now):
            reconciler.awaited = True
            return
        if state.prepared is None:
            return
        self._check_timers(now, state.prepared)
        self._report_transitions()
        if state.decision_due:
            self._redecide(now, state.prepared)
        self._commands.start_execs(now)
        if reconciler.look_if_due(now):
            return
        if self._finish_due:
            self._finish_due = False
            self._finish(now, state.prepared)

    def _check_timers(self, now: float, prepared: Prepared) -> None:
        state = self.state
        if now >= state.settle_until_s:
            state.settle_until_s, state.settled = inf, True
            state.decision_due = self._finish_due = True
        state.decision_due |= now >= self._servers_due_s
        if now >= self._refresh_s:
            self._update_paths(now, prepared.uplinks, prepared.observation.facts)
        if now >= self._save_s:
            self._save(now)
        self._finish_due |= now >= self._returning.wake_s

    def _report_transitions(self) -> None:
        """Save and log the transitions of paths, run their hooks, and have a decision made."""
        state = self.state
        if not state.transitions:
            return
        changes, state.transitions[:] = tuple(state.transitions), []
        state.decision_due = self._finish_due = True
        state.out.append(self.saved())
        for change in changes:
            state.report(change)
            self._stale.note(change)

    def _save(self, now: float) -> None:
        self._save_s = now + SAVE_S
        self.state.out.append(self.saved())

    def saved(self) -> Save:
        """What the next engine needs to continue."""
        memories = tuple((*key, memory) for key, memory in self.paths.remembered().items())
        candidates = tuple(self.names.candidates.values())
        returned = tuple((*key, better) for key, better in self.state.returned.items())
        return Save(memories, candidates, returned, self._budgets.saved())

    # --- plan and apply -------------------------------------------------------------------

    def _plan(self, now: float, observation: Observation) -> bool:
        """Update the paths, decide, and plan. True if a Converge or Commit was issued."""
        state, reconciler, adopter = self.state, self._reconciler, self._adopter
        reconciler.observed = None
        adoption = adopter.current
        if adoption and adoption.held:
            reconciler.awaited = adopter.plan_down(now, observation)
            return reconciler.awaited
        try:
            resolved = resolve(adoption.config if adoption else state.config, observation)
        except ConfigError as error:
            if adoption:
                reconciler.look_at(now)
                adopter.failed(now, error.problems, config=True)
            else:
                reconciler.unresolved(now, error.problems)
            self._commands.answer_entered(now)
            return False
        uplinks, facts = resolved.uplinks, observation.facts
        if adoption:
            if state.prepared is None:  # at the start, saved path states select the uplinks
                state.config = adoption.config
                self._update_paths(now, uplinks, facts)
            decision = self._new_decision(resolved.config, uplinks, facts)
            reconciler.awaited = adopter.plan(now, resolved, decision)
            reconciler.look_at(now)  # this Look was for the adoption; do the one due for repairs
            return reconciler.awaited
        self._update_paths(now, uplinks, facts)
        self._report_transitions()
        self._decide(uplinks, facts)
        return self._reconcile(now, resolved)

    def _reconcile(self, now: float, resolved: Resolved) -> bool:
        state, reconciler = self.state, self._reconciler
        prepared = prepare(resolved, state.decision)
        self._watcher.update(prepared, state, self.paths)
        self._publish(now, prepared)
        if reconciler.reconcile(now, prepared):
            return True
        self._commands.answer_entered(now)
        self._finish_due = True
        return False

    def _update_after_apply(self, now: float, prepared: Prepared) -> None:
        """Update the state from the host as it is after Converge or Commit."""
        state, facts = self.state, prepared.observation.facts
        first = state.prepared is None
        try:
            uplinks = resolve(state.config, prepared.observation).uplinks
        except ConfigError:
            uplinks = prepared.uplinks
            self._reconciler.look_at(now)
        state.prepared = replace(prepared, uplinks=uplinks, operations=())
        if first:  # connections may hang on uplinks that went down before this start
            state.went_down |= {k: None for k, p in self.paths.path_states().items() if p == "down"}
            self._save(now)
        self._update_paths(now, uplinks, facts)
        self._report_transitions()
        self._redecide(now, state.prepared)
        self._watcher.update(state.prepared, state, self.paths)
        self._commands.answer_entered(now)
        self._finish_due = True

    def _update_paths(self, now: float, uplinks: tuple[Uplink, ...], facts: Facts) -> None:
        """Update everything that depends on the uplinks' addresses and gateways."""
        state = self.state
        self._stale.update(uplinks)
        self.servers.update(now, state.config)
        state.transitions += self.paths.update(now, state.config, uplinks, facts)
        self._refresh_s = self.paths.retry_s(now)
        if (hosts := self.paths.hosts()) != self._hosts:
            self._hosts = hosts
            state.out.append(ResolveNames(hosts))
        state.decision_due = True

    def _redecide(self, now: float, prepared: Prepared) -> None:
        """Decide, and if the decision changed, look at the kernel at once to plan for it."""
        if self._decide(prepared.uplinks, prepared.observation.facts):
            self._reconciler.look_now(now)

    def _decide(self, uplinks: tuple[Uplink, ...], facts: Facts) -> bool:
        """Decide. True if the decision changed, and so has to be applied to the kernel."""
        state = self.state
        state.decision_due, self._servers_due_s = False, inf
        before, state.decision = state.decision, self._new_decision(state.config, uplinks, facts)
        changed = state.decision != before
        self._finish_due |= changed
        state.unapplied |= changed
        return changed

    def _new_decision(self, config: Config, uplinks: tuple[Uplink, ...], facts: Facts) -> Decision:
        self.paths.check_unproven()
        paths, down = self.paths.states(), self.servers.down
        return make_decision(self.state, config, paths, down, uplinks, facts)

    # --- after the kernel was changed -------------------------------------------------------

    def _publish(self, now: float, prepared: Prepared) -> None:
        decision = self.state.decision or Decision()
        degraded, ways = self.paths.degraded(), self.paths.ways(decision)
        known = self.names.candidates
        self.names.update(now, self.state.config, prepared.uplinks, decision, degraded, ways)
        if self.names.candidates != known:
            self._save(now)

    def _finish(self, now: float, prepared: Prepared) -> None:
        """The kernel is as decided, or can't be for now: publish, log, and end connections."""
        self._publish(now, prepared)
        if self._self_check.update(prepared):
            self._reconciler.look_at(now + AGAIN_S)
        self._primaries.report()
        paths = self.paths.path_states()
        self._tunnels.move(paths)
        self._stale.end(paths)
        if self._returning.update(now, paths):
            self._save(now)
        self.paths.stand_by(now, self.state.decision or Decision(), self.state.graces)

    # --- status ---------------------------------------------------------------------------

    def status(self, now: float) -> DaemonStatus:
        """The status as far as the controller knows it; the engine and the performers add to it."""
        state, health = self.state, self.paths.health()
        return replace(
            state.status(now),
            health=tuple(replace(h, cause="not probed") if state.held else h for h in health),
            conflicts=self._reconciler.backoff.conflicts(now),
            astray=tuple(map(str, self._self_check.problems)),
            problems=(*state.lacks, *state.refused, *self.paths.problems),
            dns=DnsStatus(names=self.names.status(), problems=self.names.problems),
            servers=self.servers.checked(),
        )

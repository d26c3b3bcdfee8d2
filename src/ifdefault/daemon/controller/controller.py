"""The controller: from events to effects, turn by turn.

    events ──> paths, servers ──> transitions ──> decide ──> Look      where that changes anything
    Observed ──> follow ──> decide ──> plan ──> Publish, Converge
    Applied ──> follow ──> decide ──> EndConnections

Rules: a turn takes in all events that there are, then looks at the kernel once at most, plans once,
and publishes once. The decision follows from what is, and is made anew whenever any of that has
changed, whatever was or wasn't told. Converge ends with a look of the engine's own, which is what
Applied holds. What follows from an answer that is awaited waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.adopt import Adopter
from ifdefault.daemon.controller.commands import Commands
from ifdefault.daemon.controller.decision import decided
from ifdefault.daemon.controller.effects import SERVER_CHECKS, Effect, ResolveNames, RunHook, Save
from ifdefault.daemon.controller.names import Names
from ifdefault.daemon.controller.paths import Paths
from ifdefault.daemon.controller.reconcile import Reconciler
from ifdefault.daemon.controller.servers import ServerChecks
from ifdefault.daemon.controller.stale_connections import StaleConnections
from ifdefault.daemon.controller.state import Adoption, State
from ifdefault.daemon.controller.watch import Watcher
from ifdefault.daemon.status import DaemonStatus, DnsStatus
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import ConfigError
from ifdefault.model.health import Decision
from ifdefault.model.host import Observation
from ifdefault.model.kernel import Facts, Uplink
from ifdefault.model.kernel_events import KernelChange, LinkChanged, NeighbourChanged
from ifdefault.plan.prepare import Prepared, Resolved, prepare, resolve

DEBOUNCE_S = 0.015  # kernel events come in groups
SETTLE_S = 1.0  # a start's first answers come in any order, which is no reason to move
SAVE_S = 60.0


class Controller:
    def __init__(self) -> None:
        self.state = State()
        out = self.state.out
        self.paths, self.servers, self.names = Paths(out), ServerChecks(out), Names(out)
        self._reconciler = Reconciler(self.state)
        self._adopter, self._commands = Adopter(self.state), Commands(self.state)
        self._stale, self._watcher = StaleConnections(self.state), Watcher(out)
        self._news = False  # whether something may follow for the DNS, or for connections
        self._follow_s = inf  # when uplinks are to be followed again, whatever is told
        self._gone_s = inf  # when to decide on servers that went or came: many may at once
        self._save_s = inf
        self._primary: dict[Family, str] = {}  # the uplink that carries the default
        self._hosts: tuple[str, ...] = ()

    def receive(self, events: Sequence[e.Event], now: float) -> tuple[Effect, ...]:
        """Take in what happened, and tell what is to be done. Call it again with `Woke` at
        `wake_s`, if nothing else happens before."""
        for event in events:
            self._take(event, now)
        self._turn(now)
        effects = (*self.state.out, *self.paths.probes, *self.servers.probes)
        for each in (self.state.out, self.paths.probes, self.servers.probes):
            each.clear()
        return effects

    @property
    def wake_s(self) -> float:
        """When time itself is the next event."""
        state = self.state
        if state.prepared is None:
            return inf
        asks_s = min(self.paths.wake_s, self.servers.wake_s) if self._asks else inf
        if self._reconciler.awaited:
            return asks_s  # all else waits for the answer
        undo_s = state.unconfirmed.due_s if state.unconfirmed else inf
        mine_s = min(self._save_s, self._follow_s, self._gone_s, state.settling_s, undo_s)
        return min(asks_s, mine_s, self._reconciler.wake_s)

    @property
    def _asks(self) -> bool:
        """Whether probes are sent: while we rest there may be no way out that is the uplink's."""
        return self.state.frontend and not self.state.held and self.state.prepared is not None

    # --- what happened --------------------------------------------------------------------

    def _take(self, event: e.Event, now: float) -> None:
        state = self.state
        match event:
            case e.ProbeOutcome(path=path):
                if path != SERVER_CHECKS:
                    state.transitions += self.paths.observe(now, event)
                elif self.servers.observe(now, event):
                    self._gone_s = min(self._gone_s, self._reconciler.paced_s(now))
            case e.Woke():
                pass
            case e.TrafficSeen():
                state.transitions += self.paths.traffic(now, event)
            case e.KernelChanged(changes):
                self._take_changes(now, changes)
            case e.Observed() | e.LookFailed() | e.Applied() | e.Committed() | e.CommitFailed():
                self._take_host(now, event)
            case e.FrontendStarted() | e.FrontendEnded() | e.SocketFailed():
                self._take_frontend(now, event)
            case e.NameResolved(host, addresses, error):
                self.paths.resolved(host, addresses, error)
            case _:
                self._take_rare(now, event)

    def _take_rare(self, now: float, event: e.Event) -> None:
        state = self.state
        match event:
            case e.SilentlyChanged(groups):
                if not state.refused:  # else it is tried again in its own time
                    state.owed |= groups  # what was asked for with a group is no repair
                    self._reconciler.look_at(now)
            case e.PublicAddressFound(uplink, family, address):
                self.names.discovered[uplink, family] = address
                self._news = True
            case e.ConnectionsEnded():
                self._stale.tell(event)
            case e.Started(config, forced, memories, candidates, public):
                self.names.candidates = {each.uplink: each for each in candidates}
                self.names.discovered = {(p.uplink, p.family): p.address for p in public}
                state.started_s, state.forced = now, dict(forced)
                self.paths.memories = {(name, family): m for name, family, m in memories}
                state.adoptions.append(Adoption("start", config))
            case _:
                self._commands.take(event)
                if self._commands.entering:
                    self._reconciler.look_now(now)

    def _take_changes(self, now: float, changes: Sequence[KernelChange]) -> None:
        for change in changes:
            match change:
                case LinkChanged():
                    self.state.transitions += self.paths.link(now, change)
                case NeighbourChanged():
                    self.state.transitions += self.paths.neighbour(now, change)
                    if not change.mac:
                        continue  # a MAC may tell two uplinks apart
            self._reconciler.look_at(now + DEBOUNCE_S)

    def _take_frontend(
        self, now: float, event: e.FrontendStarted | e.FrontendEnded | e.SocketFailed
    ) -> None:
        match event:
            case e.FrontendStarted():
                self.state.frontend = True
                if not self.state.settled:
                    self.state.settling_s = min(self.state.settling_s, now + SETTLE_S)
                self.paths.reopen()
            case e.FrontendEnded():
                self.state.frontend = False
            case e.SocketFailed(path):
                self.paths.socket_failed(now, path)
                self._follow_s = self.paths.retry_s(now)

    def _take_host(
        self,
        now: float,
        event: e.Observed | e.LookFailed | e.Applied | e.Committed | e.CommitFailed,
    ) -> None:
        """An answer to Look, Converge or Commit."""
        reconciler, adopter, state = self._reconciler, self._adopter, self.state
        match event:
            case e.Observed(observation, took_s):
                reconciler.took(now, took_s)
                reconciler.observed = observation
            case e.LookFailed(problems):
                reconciler.look_failed(now, event)
                self._commands.settle()
                self._news = True
                if adopter.current:
                    adopter.failed(now, problems)
            case e.Applied(observation):
                assert state.prepared is not None
                reconciler.applied(now, event, state.prepared)
                self._follow_applied(now, replace(state.prepared, observation=observation))
            case e.Committed(observation, took_s):
                reconciler.took(now, took_s)
                self._follow_applied(now, adopter.committed(now, observation))
            case e.CommitFailed(problems):
                reconciler.took(now, 0.0)
                reconciler.look_at(now)
                adopter.failed(now, problems)

    # --- a turn ---------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        state, reconciler = self.state, self._reconciler
        if self._asks and now >= min(self.paths.wake_s, self.servers.wake_s):
            state.transitions += self.paths.ask(now)
            self.servers.ask(now)
        self._tell_transitions()
        if reconciler.awaited:
            return
        self._commands.undo_if_due(now)
        if reconciler.observed and self._plan(now, reconciler.observed):
            return
        if self._adopter.begin(now):
            reconciler.awaited = True
            return
        if state.prepared is None:
            return
        self._keep_time(now, state.prepared)
        self._tell_transitions()
        if state.undecided:
            self._redecide(now, state.prepared)
        if reconciler.look_if_due(now):
            return
        if self._news:
            self._news = False
            self._rest(now, state.prepared)

    def _keep_time(self, now: float, prepared: Prepared) -> None:
        """What is due for no other reason than the time."""
        state = self.state
        if now >= state.settling_s:
            state.settling_s, state.settled = inf, True
            state.undecided = True
        if now >= self._gone_s:
            state.undecided = True
        if now >= self._follow_s:
            self._follow(now, prepared.uplinks, prepared.observation.facts)
        if now >= self._save_s:
            self._save(now)

    def _tell_transitions(self) -> None:
        """What changed is kept, told, and decided on."""
        state = self.state
        if not state.transitions:
            return
        changes, state.transitions[:] = tuple(state.transitions), []
        state.undecided = self._news = True
        state.out.append(self.saved())
        for change in changes:
            worse = change.state in ("down", "degraded")
            state.log("path", str(change), change.uplink, "warning" if worse else "info")
            path = (change.uplink, change.family, change.was, change.state)
            state.out.append(RunHook(change.state, *path, change.cause))
            self._stale.note(change)

    def _save(self, now: float) -> None:
        self._save_s = now + SAVE_S
        self.state.out.append(self.saved())

    def saved(self) -> Save:
        """What a later engine needs, which is also kept at the end."""
        memories = tuple((*key, memory) for key, memory in self.paths.remembered().items())
        return Save(memories, tuple(self.names.candidates.values()))

    # --- from what is to what should be -----------------------------------------------------

    def _plan(self, now: float, observation: Observation) -> bool:
        """Follow the host as it was found to be, decide, and plan; whether an answer is to come."""
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
            self._commands.settle()
            return False
        uplinks, facts = resolved.uplinks, observation.facts
        if adoption:
            if state.prepared is None:  # what is known of paths tells which uplinks to use
                state.config = adoption.config
                self._follow(now, uplinks, facts)
            reconciler.awaited = adopter.plan(now, resolved, self._decided(uplinks, facts))
            reconciler.look_at(now)  # what was to be looked at for its own sake
            return reconciler.awaited
        self._follow(now, uplinks, facts)
        self._tell_transitions()
        self._decide(uplinks, facts)
        return self._reconcile(now, resolved)

    def _reconcile(self, now: float, resolved: Resolved) -> bool:
        state, reconciler = self.state, self._reconciler
        prepared = prepare(resolved, state.decision)
        self._watcher.follow(prepared, state)
        self._publish(now, prepared)
        if reconciler.reconcile(now, prepared):
            return True
        self._commands.settle()
        self._news = True
        return False

    def _follow_applied(self, now: float, prepared: Prepared) -> None:
        """Take in what the host was found to be after all was performed."""
        state, facts = self.state, prepared.observation.facts
        first = state.prepared is None
        try:
            uplinks = resolve(state.config, prepared.observation).uplinks
        except ConfigError:
            uplinks = prepared.uplinks
            self._reconciler.look_at(now)
        state.prepared = replace(prepared, uplinks=uplinks, operations=())
        if first:  # what died before us may have been left hanging
            down = (key for key, (path, _) in self.paths.states().items() if path == "down")
            state.fallen |= dict.fromkeys(down)
            self._save(now)
        self._follow(now, uplinks, facts)
        self._tell_transitions()
        self._redecide(now, state.prepared)
        self._watcher.follow(state.prepared, state)
        self._commands.settle()
        self._news = True

    def _follow(self, now: float, uplinks: tuple[Uplink, ...], facts: Facts) -> None:
        """Take in uplinks as they are now."""
        state = self.state
        self._stale.follow(uplinks)
        self.servers.follow(now, state.config)
        state.transitions += self.paths.follow(now, state.config, uplinks, facts)
        self._follow_s = self.paths.retry_s(now)
        if (hosts := self.paths.hosts()) != self._hosts:
            self._hosts = hosts
            state.out.append(ResolveNames(hosts))
        state.undecided = True

    def _redecide(self, now: float, prepared: Prepared) -> None:
        """Decide anew by what is known; what changes is brought to the kernel at once."""
        if self._decide(prepared.uplinks, prepared.observation.facts):
            self._reconciler.look_now(now)

    def _decide(self, uplinks: tuple[Uplink, ...], facts: Facts) -> bool:
        """Decide anew; whether that changes anything, which is then owed to the kernel."""
        state = self.state
        state.undecided, self._gone_s = False, inf
        before, state.decision = state.decision, self._decided(uplinks, facts)
        changed = state.decision != before
        self._news |= changed
        state.owed |= changed
        return changed

    def _decided(self, uplinks: tuple[Uplink, ...], facts: Facts) -> Decision:
        return decided(self.state, self.paths.states(), self.servers.down, uplinks, facts)

    # --- what follows ---------------------------------------------------------------------

    def _publish(self, now: float, prepared: Prepared) -> None:
        decision = self.state.decision or Decision()
        degraded = [h.uplink for h in self.paths.health() if h.state == "degraded"]
        ways = self.paths.ways(decision)
        known = self.names.candidates
        self.names.follow(now, self.state.config, prepared.uplinks, decision, degraded, ways)
        if self.names.candidates != known:
            self._save(now)

    def _rest(self, now: float, prepared: Prepared) -> None:
        """All is as it is to be, or can't be yet: tell others."""
        state = self.state
        self._publish(now, prepared)
        for family in FAMILIES:
            order = state.decision.ranking(family) if state.decision else ()
            name, was = (order[0] if order else ""), self._primary.get(family, "")
            if name and name != was and not state.owed and not state.held:
                self._primary[family] = name
                state.log("primary", f"primary IPv{family}: {was or 'none'} -> {name}", name)
                if was:  # else we have just started, and nothing moved
                    state.out.append(RunHook("primary", name, family, was, name))
        self._stale.end({key: path for key, (path, _) in self.paths.states().items()})

    # --- how it stands --------------------------------------------------------------------

    def status(self, now: float) -> DaemonStatus:
        """How all stands, as far as it is known here; the engine adds what it alone knows."""
        state = self.state
        lacks = map(str, state.prepared.lacks) if state.prepared else ()
        return DaemonStatus(
            pid=0,
            up_s=now - state.started_s,
            now_s=now,
            config="",
            health=self.paths.health(),
            decision=state.decision or Decision(),
            forced={name: forced for name, forced in state.forced.items() if forced != "auto"},
            held=state.held or (state.unconfirmed.told(now) if state.unconfirmed else ""),
            fights=self._reconciler.backoff.told(now),
            problems=(*lacks, *state.refused, *self.paths.problems),
            dns=DnsStatus(names=self.names.status(), problems=self.names.problems),
            servers=self.servers.checked(),
        )

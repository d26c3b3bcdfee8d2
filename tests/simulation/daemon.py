"""The daemon: the controller, and a simulated engine that performs its effects on the world.

    world.inbox ─> Controller.receive ─> effects, one after another ─> world, answers into the inbox

Rules: it works as the real engine does, except for sockets. It may be killed between any two
effects or operations; the next one knows only what was saved until then. Outcomes of the host come
at once, or after `slow_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Protocol

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.model.errors import Problem
from ifdefault.model.host import Observation
from ifdefault.model.kernel import Desired, Operation
from ifdefault.plan.diff import diff, record_tables
from ifdefault.plan.originals import settled
from ifdefault.plan.prepare import Prepared, snapshot
from tests.property.fakekernel import Refused
from tests.simulation.frontend import Frontend
from tests.simulation.names import Nameservers
from tests.simulation.trace import Trace
from tests.simulation.world import World

LOOK_S = 0.004
AGAIN_S = 1.0  # until the service manager restarts it
FRONTEND_S = 0.1
WATCH_S = 5.0  # how often what the kernel sends no notification of is polled
_ROUTINE = e.Woke, e.ProbeOutcome, e.TrafficSeen, e.TrafficCounted


class Killed(Exception):
    """The daemon was killed."""


class Witness(Protocol):
    """Observes the daemon; see `invariants`."""

    def before(self, prepared: Prepared) -> None: ...
    def operated(self, operation: Operation) -> None: ...
    def performed(self, effect: f.Effect) -> None: ...
    def refused(self, operation: Operation) -> None: ...
    def turned(self, *, changed: bool) -> None: ...
    def ended(self) -> None: ...


class Daemon:
    """`disturbed_s`: when it was last kept from its work, and `leaped_s` when time leaped. `heard`
    is the version of the kernel that it knows, `heard_others` what others had done by then.
    `ambush`: what happens, after how many steps more."""

    def __init__(self, world: World, trace: Trace) -> None:
        self.world, self.trace = world, trace
        self.kernel, self.clock = world.kernel, world.clock
        self.witness: Witness | None = None
        self.controller: Controller | None = None
        self.names = Nameservers(world)
        self.slow_s = 0.0
        self.ambush: tuple[int, Callable[[], None]] | None = None
        self.disturbed_s = self.leaped_s = 0.0
        self.heard = self.heard_others = -1
        self.frontend = Frontend(world)
        self.unreadable = False
        self.turns = 0
        self.owes = 0  # outcomes of the host that are under way
        self.life = 0  # counts daemons: what was asked for an earlier one comes to nothing
        self.asked: dict[int, float] = {}  # unanswered requests, and since when
        self.watch = f.Watch()

    # --- its life -------------------------------------------------------------------------

    def start(self) -> None:
        world, disk = self.world, self.world.disk
        self.life += 1
        world.count("starts")
        self.controller, self.watch, self.heard, self.owes = Controller(), f.Watch(), -1, 0
        self.disturbed_s = self.clock.now
        forced = tuple(sorted(disk.forced.items()))
        saved = disk.saved
        usage = saved.usage and replace(saved.usage, boot="this")
        drains = tuple((name, at_s - self.clock.now) for name, at_s in sorted(disk.drains.items()))
        started = e.Started(disk.config, forced, saved.memories, saved.candidates, drains=drains)
        world.inbox[:] = [replace(started, returned=saved.returned, usage=usage)]
        self._mine(FRONTEND_S, self.start_frontend)

    def kill(self) -> None:
        """Raises Killed; called from within an effect."""
        raise Killed

    def end(self, again_s: float = AGAIN_S) -> None:
        self.trace.note(self.clock.now, "killed")
        self.controller = None
        self.frontend.end()
        self.frontend.resolve(())
        self.life += 1
        self.asked.clear()
        self.world.inbox.clear()
        self.names.end()
        self.clock.incident(again_s, self.start)

    def start_frontend(self) -> None:
        self.disturbed_s = self.clock.now
        self.frontend.start()

    def end_frontend(self) -> None:
        if self.controller and self.frontend.alive:
            self.disturbed_s = self.clock.now
            self.frontend.end()
            self.world.inbox.append(e.FrontendEnded())
            self._mine(AGAIN_S, self.start_frontend)

    def _mine(self, wait_s: float, act: Callable[[], None]) -> None:
        """Do it later, if this daemon is still running then."""
        life = self.life
        self.clock.answer(wait_s, lambda: act() if self.life == life else None)

    def _tell(self, wait_s: float, event: e.Event) -> None:
        if wait_s:
            self._mine(wait_s, lambda: self.world.inbox.append(event))
        else:
            self.world.inbox.append(event)

    def ask(self, event: e.Event, request: int) -> None:
        """Receive a request of the operator."""
        if self.controller:
            self.asked[request] = self.clock.now
            self.world.inbox.append(event)

    # --- a turn ---------------------------------------------------------------------------

    @property
    def wake_s(self) -> float:
        if self.controller is None:
            return inf
        return self.clock.now if self.world.inbox else self.controller.wake_s

    def turn(self) -> None:
        if self.controller is None:
            self.world.inbox.clear()
            return
        events = tuple(self.world.inbox) or (e.Woke(),)
        self.world.inbox.clear()
        self.turns += 1
        now = self.clock.now
        changed = False
        for event in events:
            self.trace.event(now, event)
            changed |= not isinstance(event, _ROUTINE)
        try:
            for effect in self.controller.receive(events, now):
                changed |= not isinstance(effect, f.SendProbe)
                self.step()
                self.trace.effect(now, effect)
                self._perform(effect)
                if self.witness:
                    self.witness.performed(effect)
        except Killed:
            self.end()
            if self.witness:
                self.witness.ended()
            return
        if self.witness:
            self.witness.turned(changed=changed)

    def step(self) -> None:
        """Called before each effect or operation: a planned incident may happen now."""
        if self.ambush:
            left, act = self.ambush
            self.ambush = (left - 1, act) if left else None
            if not left:
                act()

    def _perform(self, effect: f.Effect) -> None:
        match effect:
            case f.SendProbe():
                self.frontend.probe(effect)
            case f.Look():
                self._look(effect)
            case f.Converge(prepared):
                self._converge(prepared)
            case f.Commit(prepared):
                self._commit(prepared)
            case f.OpenProbeSocket(path, source):
                self.frontend.open(path, source)
            case f.CloseProbeSocket(path):
                self.frontend.close(path)
            case f.Publish():
                self.names.publish(effect)
            case f.Save():
                self.world.disk.saved = effect
            case f.Log(kind="primary"):
                self.world.count("default moved")
            case _:
                self._perform_rare(effect)

    def _perform_rare(self, effect: f.Effect) -> None:
        match effect:
            case f.Watch():
                self.watch = effect
            case f.EndConnections(uplink, family) | f.ReturnConnections(uplink, family):
                self._tell(0.01, e.ConnectionsEnded(uplink, family, sockets=3, took_s=0.01))
            case f.ResolveNames(hosts):
                self.frontend.resolve(hosts)
            case f.SaveForced(id, uplink, forced, timeout_s):
                self.world.disk.forced[uplink] = forced
                self.world.disk.drains.pop(uplink, None)
                if timeout_s:
                    self.world.disk.drains[uplink] = self.clock.now + timeout_s
                self._tell(0.001, e.ForcedSaved(id))
            case f.EnterGroup(id, pid, _, uplink):
                path = f"/ifdefault/{pid}"
                self.kernel.groups[path] = pid
                state = self.world.disk.state
                self.world.disk.state = replace(state, runs={**state.runs, path: uplink})
                self._tell(0.001, e.GroupEntered(id, path, "/"))
                self._tell(0.001, e.SilentlyChanged(groups=True))
            case f.LeaveGroup(pid):
                self.kernel.groups.pop(f"/ifdefault/{pid}", None)
            case f.Answer(id):
                self.asked.pop(id, None)
            case f.Stop():
                self.world.count("stops")
                raise Killed

    # --- the host -------------------------------------------------------------------------

    def _look(self, look: f.Look) -> None:
        self.world.count("looks")
        self.owes += 1
        if self.kernel.locked_s > self.clock.now and look.wait:
            self._mine(self.kernel.locked_s - self.clock.now, lambda: self._seen(look))
        elif self.slow_s:
            self._mine(self.slow_s, lambda: self._seen(look))
        else:
            self._seen(look)

    def _seen(self, look: f.Look) -> None:
        self.owes -= 1
        locked = self.kernel.locked_s > self.clock.now and not look.wait
        if locked or self.unreadable:
            self.disturbed_s = self.clock.now
            what = "another ifdefault is at work" if locked else "netlink: no buffer space"
            self._tell(0.0, e.LookFailed((Problem("host", what),), locked))
            return
        self._hear()
        disk = self.world.disk
        self._tell(0.0, e.Observed(self.observe(look), LOOK_S))
        disk.state = settled(disk.state, self.kernel.facts)

    def _hear(self) -> None:
        self.heard, self.heard_others = self.kernel.version, self.kernel.others

    def observe(self, look: f.Look) -> Observation:
        disk = self.world.disk
        return self.kernel.observe(look.config, disk.state, disk.loaded, look.questions)

    def _operate(self, prepared: Prepared, *, go_on: bool) -> list[Problem]:
        """Perform the plan, to the end or to the first refusal; return what was refused."""
        refused: list[Problem] = []
        self.world.disk.state = prepared.state
        if self.witness:
            self.witness.before(prepared)
        for operation in prepared.operations:
            self.step()
            try:
                self.kernel.perform(operation)
            except Refused as refusal:
                refused.append(Problem("kernel", str(refusal)))
                if self.witness:
                    self.witness.refused(operation)
                if not go_on:
                    break
            if self.witness:
                self.witness.operated(operation)
        return refused

    def _note(self, prepared: Prepared, target: Desired) -> Observation:
        """Save what was done; return the host as it is then."""
        disk, facts = self.world.disk, self.kernel.facts
        runs = {path: u for path, u in disk.state.runs.items() if self.kernel.groups.get(path)}
        disk.loaded = record_tables(facts, target)
        disk.state = settled(replace(disk.state, runs=runs), facts)
        self._hear()
        answers = self.kernel.answers(prepared.questions)
        now = replace(prepared.observation, facts=facts, state=disk.state, loaded=disk.loaded)
        return replace(now, answers=answers)

    def _converge(self, prepared: Prepared) -> None:
        self.world.count("converges")
        refused = self._operate(prepared, go_on=True)
        observation = self._note(prepared, prepared.desired)
        self._answer(e.Applied(observation, LOOK_S, tuple(refused)))

    def _commit(self, prepared: Prepared) -> None:
        self.world.count("commits")
        came_from = snapshot(prepared.observation)
        refused = self._operate(prepared, go_on=False)
        facts, desired = self.kernel.facts, prepared.desired
        if not refused and diff(facts, desired, record_tables(facts, desired)):
            refused.append(Problem("verify", "the kernel still differs"))
        if refused:
            self._return_to(came_from, prepared)
            self._answer(e.CommitFailed(tuple(refused)))
        else:
            self._answer(e.Committed(self._note(prepared, desired), LOOK_S))

    def _return_to(self, target: Desired, prepared: Prepared) -> None:
        facts = self.kernel.facts
        there = {link.name for link in facts.links}
        routes = tuple(r for r in target.routes if all(hop.dev in there for hop in r.hops))
        target = replace(target, routes=routes)
        for operation in diff(facts, target, self.world.disk.loaded):
            self.step()
            try:
                self.kernel.perform(operation)
            except Refused:
                continue
        self._note(prepared, target)

    def _answer(self, event: e.Event) -> None:
        if self.slow_s:
            self.owes += 1

            def give() -> None:
                self.owes -= 1
                self.world.inbox.append(event)

            self._mine(self.slow_s, give)
        else:
            self._tell(0.0, event)

    def read_silent(self) -> None:
        """Check whether anything that is polled has changed."""
        now = dict(self.kernel.facts.sysctls)
        if any(now.get(name) not in (value, None) for name, value in self.watch.sysctls):
            self.world.inbox.append(e.SilentlyChanged())
        if any(self.kernel.groups.get(path, 0) != number for path, number in self.watch.groups):
            self.world.inbox.append(e.SilentlyChanged(groups=True))

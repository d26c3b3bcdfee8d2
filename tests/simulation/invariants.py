"""What must hold after each turn, and what must precede each effect.

Rules: each invariant is a function that returns what is wrong, or "". It uses the kernel's lookup,
the true state of lines, and its own plans; of the controller it reads only the results. Where the
daemon was disturbed lately, time limits start again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.controller.state import Key
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.flow import Flow
from ifdefault.model.health import PathState
from ifdefault.model.kernel import Facts, Operation
from ifdefault.model.usage import Usage
from ifdefault.plan.diff import own_routes, own_rules
from ifdefault.plan.prepare import Prepared
from ifdefault.plan.settings import REDIRECTS
from tests.simulation import host
from tests.simulation.at_rest import (
    decision_is_that_of_now,
    kernel_is_as_desired,
    names_follow,
    replies_leave_by_their_uplink,
)
from tests.simulation.connections_return import WayBack
from tests.simulation.daemon import Daemon
from tests.simulation.internet import Uplink
from tests.simulation.kernel import FAR, Way
from tests.simulation.world import World

CLEAN_S, TAUGHT_S = 1.2, 3.7  # until a dead uplink is no longer used
# more, where connections that go on spare a probe: by its slack (health.probe_schedule), and by the
# time since they were looked at
SPARED_S = 0.2
CAUSED_S = 8.0  # a path goes down so long, at the latest, after its line was bad
DEGRADED_S = 150.0
ANSWER_S = 30.0  # a request is answered within
SEEN_S = 45.0  # changes by others are noticed within


class Violation(AssertionError):
    """An invariant doesn't hold."""


@dataclass(frozen=True)
class Rest:
    """A settled state, as the next daemon would find it."""

    version: int
    config: Config


class Invariants:
    """The daemon's witness."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world, self.daemon, self.kernel = world, daemon, world.kernel
        self._originals = dict(world.kernel.facts.sysctls)
        self._right: dict[Flow, Way] = {}  # what goes its right way, and must go on to
        self._facts, self._others = world.kernel.facts, 0  # before operations
        self._answered: set[int] = set()
        self._named: set[tuple[str, tuple[str, ...]]] = set()  # names that had an address once
        self._recorded: set[str] = set()
        self._dead: dict[Family, tuple[str, float]] = {}
        self._checked: object = None
        self._rest: Rest | None = None
        self._usage: tuple[Usage, ...] = ()
        self._uncounted: dict[str, int] = {}  # bytes carried before they were counted
        self._way_back = WayBack(world)
        self._commits = 0  # of this daemon

    # --- Witness --------------------------------------------------------------------------

    def before(self, prepared: Prepared) -> None:
        self._facts, self._others = self.kernel.facts, self.kernel.others
        self._right = {}
        if self.daemon.heard_others == self.kernel.others:
            self._right = dict(self._going_right(prepared))
        self._insist("a restart changes nothing", self.restart_changes_nothing(prepared))

    def _going_right(self, prepared: Prepared) -> Iterator[tuple[Flow, Way]]:
        """Replies that go their way by a rule of ours, or by others' before there is any. (What
        others left of ours may lead there by chance.)"""
        first = not own_rules(self.kernel.facts)
        for flow, way, table in _replies(prepared):
            found = self.kernel.lookup(flow)
            by_ours = found.rule is not None and found.rule.table == table
            if (first or by_ours) and self.kernel.way(flow) == way:
                yield flow, way

    def operated(self, operation: Operation) -> None:
        if self.kernel.others != self._others:
            self._right = {}
        for flow, way in self._right.items():
            if (now := self.kernel.way(flow)) != way:
                text = f"{flow} left by {way}, and leaves by {now} after {operation}"
                raise Violation(f"replies keep their way: {text}")

    def refused(self, operation: Operation) -> None:
        if self.daemon.heard_others == self.kernel.others:
            raise Violation(f"plans are sound: no kernel would take {operation}")

    def performed(self, effect: f.Effect) -> None:
        match effect:
            case f.RunHook():
                self._insist("no transition without a cause", self.transition_has_cause(effect))
            case f.Commit(prepared) | f.Converge(prepared):
                self._insist("others' is left alone", self.others_is_left_alone(prepared))
                self._insist("down leaves nothing", self.down_leaves_nothing(prepared))
                self._commits += 1
            case f.EndConnections(uplink, family):
                wrong = self.kernel_sends_elsewhere(self.world.uplink(uplink), family)
                self._insist("connections end last", wrong)
                self._way_back.ended(uplink, family)
            case f.ReturnConnections(uplink, family):
                assert self.daemon.controller
                wrong = self._way_back.better_one_is_used(self.daemon.controller, effect)
                self._insist("connections return", wrong)
                self._way_back.ended(uplink, family)
            case f.Answer(id):
                self._insist("one answer each", self.answered_once(id))
            case f.Publish():
                self._insist("names keep an address", self.names_keep_an_address(effect))
            case f.Save() | f.SaveForced():
                self._rest = None

    def turned(self, *, changed: bool) -> None:
        """A turn ended; one that only sent probes or received outcomes changed nothing."""
        self._insist("nobody waits for nothing", self.waits_for_somebody())
        self.looked()
        self._insist("each byte is counted once", self.bytes_are_counted())
        if changed:
            self._insist("names keep an address", self.records_stay())
            self._insist("one answer each", self.requests_are_answered())
            if self._is_settled():
                self._settled()

    def looked(self) -> None:
        """Something happened, or time has passed."""
        if self._dead or self.world.any_dead():
            self._insist("dead uplinks are left", self.dead_uplinks_are_left())
        self._insist("what others do is seen", self.others_is_seen())

    def ended(self) -> None:
        self._commits, self._checked = 0, None
        self._way_back.restarted()

    def _insist(self, name: str, wrong: str) -> None:
        if wrong:
            raise Violation(f"{name}: {wrong}")

    # --- at any time ----------------------------------------------------------------------

    def transition_has_cause(self, step: f.RunHook) -> str:
        """A path goes down only if its line or link was bad lately, and up only if a probe was
        answered."""
        if step.event == "primary":
            return ""
        now, uplink = self.world.clock.now, self.world.uplink(step.uplink)
        line = uplink.lines[step.family]
        linked = uplink.linked and self.world.complete(uplink, step.family)
        bad_s = max(line.bad_s, line.misled_s, uplink.moved_s if linked else now)
        text = f"{step.uplink} IPv{step.family} {step.was} -> {step.state} ({step.cause})"
        match step.state:
            case "down":
                return text if bad_s < now - CAUSED_S else ""
            case "degraded":
                return text if bad_s < now - DEGRADED_S else ""
            case "up" | "recovering":
                return text if line.answered_s < now - CAUSED_S else ""
        return ""

    def others_is_left_alone(self, prepared: Prepared) -> str:
        """Rules and routes that aren't ours, and sysctls that we don't set, are as others left
        them."""
        if self.kernel.others != self._others:
            return ""
        before, after = self._facts, self.kernel.facts
        if _foreign(before) != _foreign(after):
            return "a rule, a route or an address was changed"
        wanted = {*dict(prepared.desired.sysctls), *prepared.state.sysctls, REDIRECTS}
        was = dict(before.sysctls)
        strange = [n for n, value in after.sysctls if value != was[n] and n not in wanted]
        return f"sysctl {strange[0]}" if strange else ""

    def down_leaves_nothing(self, prepared: Prepared) -> str:
        """After `down` nothing of ours is in the kernel, and originals are restored."""
        facts = self.kernel.facts
        if prepared.config != Config(()) or self.kernel.others != self._others:
            return ""
        left = (*own_rules(facts), *own_routes(facts), *facts.tables)
        left += tuple(link.name for link in facts.links if link.group)
        left += (facts.hook,) if facts.hook else ()
        touched = self.kernel.touched
        left += tuple(
            (name, value)
            for name, value in facts.sysctls
            if name not in touched and value != self._originals[name]
        )
        return str(left[0]) if left else ""

    def kernel_sends_elsewhere(self, uplink: Uplink, family: Family) -> str:
        """A dead uplink's connections are ended only when new ones use another uplink."""
        way = self.kernel.default(family)
        return (
            f"{uplink.name} IPv{family} still has the default" if way == uplink.way(family) else ""
        )

    def answered_once(self, request: int) -> str:
        """No request is answered twice."""
        known = len(self._answered)
        self._answered.add(request)
        return f"request {request} again" if len(self._answered) == known else ""

    def requests_are_answered(self) -> str:
        """Each request is answered in time."""
        now = self.world.clock.now
        late = [one for one, asked_s in self.daemon.asked.items() if asked_s < now - ANSWER_S]
        calm = self.daemon.disturbed_s < now - ANSWER_S
        return f"request {late[0]} waits" if late and calm else ""

    def waits_for_somebody(self) -> str:
        """If an outcome of the host is awaited, one is under way."""
        daemon, controller = self.daemon, self.daemon.controller
        if controller is None or daemon.owes or self.world.inbox:
            return ""
        return "for the host" if controller._reconciler.awaited else ""

    def names_keep_an_address(self, said: f.Publish) -> str:
        """A name that had an address has one, as long as its uplinks are the same; a client gets
        what is published."""
        uplinks = tuple(u.name for u in said.config.uplinks)
        wanted = {name.name: name.uplinks for name in said.config.dns.names}
        # an uplink that the config had lost is a new one when it comes again
        self._named = {key for key in self._named if set(key[1]) <= set(uplinks)}
        for name in said.published:
            key = name.name, wanted[name.name] or uplinks
            if name.addresses:
                self._named.add(key)
            elif key in self._named:
                return f"{name.name} has none"
            got = set(self.daemon.names.answers.get(name.name, ()))
            is_served = name.name.endswith(host.ZONE)
            if is_served and got != {record.address for record in name.addresses}:
                return f"clients get {got} for {name}"
        return ""

    def records_stay(self) -> str:
        """The other server never loses its last record of a name."""
        for name, records in self.daemon.names.records.items():
            if records:
                self._recorded.add(name)
            elif name in self._recorded:
                return f"no record of {name} is left at {host.UPDATED_SERVER.address}"
        return ""

    def dead_uplinks_are_left(self) -> str:
        """The primary's default route leaves a dead uplink in time, if another works."""
        now = self.world.clock.now
        for family in FAMILIES:
            uplink = self._on_dead_uplink(family)
            if uplink is None:
                self._dead.pop(family, None)
                continue
            line = uplink.lines[family]
            name, since_s = self._dead.get(family, ("", now))
            kept_s = max(self.daemon.disturbed_s, self.daemon.leaped_s, line.since_s)
            if name != uplink.name or since_s < kept_s:
                since_s = now
            self._dead[family] = uplink.name, since_s
            clean = not line.taught and not self._is_new(uplink, family)
            spared_s = SPARED_S if self.world.traffic else 0.0
            if now - since_s > (CLEAN_S if clean else TAUGHT_S) + spared_s:
                return f"{uplink.name} IPv{family} is {line.kind} for {now - since_s:.3f} s"
        return ""

    def _on_dead_uplink(self, family: Family) -> Uplink | None:
        """The dead uplink that is primary although another works."""
        controller, now = self.daemon.controller, self.world.clock.now
        uplink = self.world.by_way(self.kernel.default(family), family)
        if controller is None or uplink is None or not uplink.dead(family):
            return None
        state = controller.state
        if state.held or state.prepared is None or not self._can_work(controller):
            return None
        if state.forced.get(uplink.name) == "up":
            return None
        states = controller.paths.states()
        forced = {u.name: state.forced_state(u) for u in state.config.uplinks}
        better = any(
            forced.get(other.name) in ("auto", "up")
            and other != uplink
            and family in other.lines
            and other.fine(now, family)
            and self.world.complete(other, family)
            and states.get((other.name, family), ("", 0))[0] in ("up", "degraded")
            for other in self.world.uplinks
        )
        return uplink if better else None

    def _is_new(self, uplink: Uplink, family: Family) -> bool:
        """Whether its path was proven so lately that not all of its targets are."""
        controller = self.daemon.controller
        assert controller is not None
        own = (uplink.name, family)
        targets = [h.targets for h in controller.paths.health() if (h.uplink, h.family) == own]
        return not targets or any(not target.answered for target in targets[0])

    def _can_work(self, controller: Controller) -> bool:
        daemon, now = self.daemon, self.world.clock.now
        fought = controller._reconciler.backoff.until_s > now - 1.0
        kept = daemon.slow_s or daemon.unreadable or self.kernel.locked_s > now
        return daemon.frontend.alive and not (fought or kept or controller.state.refused)

    def others_is_seen(self) -> str:
        """Changes by others are noticed after a while, also those without a notification."""
        daemon, controller, now = self.daemon, self.daemon.controller, self.world.clock.now
        quiet_s = max(daemon.disturbed_s, self.kernel.others_s)
        if controller is None or now - quiet_s < SEEN_S or not self._can_work(controller):
            return ""
        woken = now > daemon.leaped_s + 1.0  # by then it has looked
        if controller.state.held or not woken or daemon.heard == self.kernel.version:
            return ""
        return f"nothing was seen of it for {now - quiet_s:.0f} s"

    def bytes_are_counted(self) -> str:
        """Of an uplink that has been counted, all that it has carried since, over restarts too."""
        controller, world = self.daemon.controller, self.world
        if controller is None or controller.state.usage == self._usage or world.inbox:
            return ""
        self._usage = controller.state.usage
        saved = controller.saved().usage
        counted_now = {usage.uplink for usage in self._usage}
        self._uncounted = {n: first for n, first in self._uncounted.items() if n in counted_now}
        for each in saved.uplinks if saved else ():
            if each.uplink not in counted_now:
                continue
            counted = sum(s.bytes for s in each.slices) + sum(n for _, n in each.days)
            first = self._uncounted.setdefault(each.uplink, world.total[each.uplink] - counted)
            if world.total[each.uplink] != first + counted:
                return f"{each.uplink} carried {world.total[each.uplink] - first}, not {counted}"
        return ""

    # --- when all is settled --------------------------------------------------------------

    def _is_settled(self) -> bool:
        """Nothing is unapplied, held, refused or in conflict, and the kernel's state is known."""
        controller = self.daemon.controller
        if controller is None or self.world.inbox or self.daemon.heard != self.kernel.version:
            return False
        state, reconciler = controller.state, controller._reconciler
        due = state.unapplied or state.decision_due
        busy = state.held or due or state.refused or state.adoptions
        waits = reconciler.awaited or controller._adopter.current
        later = reconciler._look_s < inf
        if state.prepared is None or busy or waits or later:
            return False
        last, now = state.prepared.observation, self.daemon.observe(f.Look(state.config))
        return (last.state.runs, last.groups) == (now.state.runs, now.groups)

    def _settled(self) -> None:
        controller, now = self.daemon.controller, self.world.clock.now
        assert controller is not None
        kept = self._way_back.none_is_kept(controller, self.daemon.disturbed_s)
        self._insist("connections return", kept)
        state, states = controller.state, controller.paths.states()
        disk = self.world.disk
        seen = self.kernel.version, states, tuple(state.forced.items()), state.decision
        key = *seen, state.config, state.settled, tuple(disk.state.runs)
        if key != self._checked:
            self._checked = key
            found, said = self.daemon.observe(f.Look(state.config)), self.daemon.names.last
            for name, wrong in (
                ("replies keep their way", replies_leave_by_their_uplink(self.world, controller)),
                ("the decision is that of now", decision_is_that_of_now(controller, found, now)),
                ("the kernel is as desired", kernel_is_as_desired(controller, found)),
                ("names follow", names_follow(controller, said)),
            ):
                self._insist(name, wrong)
        self._rest = self._resting(controller, states) if now > self.daemon.disturbed_s else None

    # --- from one daemon to the next ------------------------------------------------------

    def _resting(
        self, controller: Controller, states: dict[Key, tuple[PathState, float]]
    ) -> Rest | None:
        """If the next daemon can know all that this one knows."""
        remembered, state = controller.paths.remembered(), controller.state
        known = all(
            path in ("up", "degraded", "recovering") or (path == "down" and remembered[key].seen)
            for key, (path, _) in states.items()
        )
        sure = (
            known
            and state.settled
            and not controller.servers.down
            and not self.world.disk.state.runs
            and self.world.disk.forced == state.forced  # else a request isn't followed yet
        )
        if not sure or state.config != self.world.disk.config:
            return None
        return Rest(self.kernel.version, state.config)

    def restart_changes_nothing(self, prepared: Prepared) -> str:
        """A daemon that finds everything as the one before left it has nothing to do."""
        rest, self._rest = self._rest, None
        if self._commits or rest is None or self.world.disk.state.runs:
            return ""
        if rest != Rest(self.kernel.version, self.world.disk.config):
            return ""
        self.world.count("restarts at rest")
        return f"it does {prepared.operations[0]}" if prepared.operations else ""


def _foreign(facts: Facts) -> tuple[object, ...]:
    ours = {*own_rules(facts)}, {*own_routes(facts)}
    rules = [rule for rule in facts.rules if rule not in ours[0]]
    return rules, {route for route in facts.routes if route not in ours[1]}, facts.addresses


def _replies(prepared: Prepared) -> Iterator[tuple[Flow, Way, int]]:
    """The way and the table by which each uplink's address answers a client."""
    for uplink in prepared.uplinks:
        for family in FAMILIES:
            address, gateway = uplink.source(family), uplink.gateway(family)
            if uplink.pending or address is None or gateway is None:
                continue
            way = uplink.interface, gateway
            yield Flow(family, FAR[family], address), way, uplink.table
            if uplink.mechanism != "source":
                flow = Flow(family, FAR[family], address, mark=uplink.arrival_mark)
                yield flow, way, uplink.table

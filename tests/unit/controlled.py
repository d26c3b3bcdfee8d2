"""A host for the controller to act on, without a kernel, a frontend or a clock of its own.

    wan0 ── isp-a   203.0.113.10, 2001:db8:a::10, the first in rank
    wan1 ── isp-b   198.51.100.10, 2001:db8:b::10

Rules: effects are performed as the engine performs them, each answered at once by what the fake
kernel makes of it; probes are answered by whatever isn't `dead`, RTT_S later; time passes only
where a test lets it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.model.config import FAMILIES, Config, Family, HealthConfig, Probe, UplinkConfig
from ifdefault.model.dns import DnsConfig, NameConfig, ServerConfig
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Flow
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import (
    TABLE_MAIN,
    Address,
    Facts,
    Hop,
    Link,
    Loaded,
    Operation,
    Route,
    Rule,
)
from ifdefault.model.kernel_events import KernelChange, LinkChanged, ObjectChanged
from ifdefault.plan.diff import record_tables
from ifdefault.plan.lookup import Fib
from ifdefault.plan.prepare import Prepared
from ifdefault.plan.self_check import ask
from tests.property.fakekernel import perform

RTT_S, LOOK_S, START_S = 0.01, 0.004, 1000.0
FAR: dict[Family, str] = {4: "192.0.2.1", 6: "2001:db8:ffff::1"}
SERVED = DnsConfig(names=(NameConfig("www.example"),), server=ServerConfig(("example",)))
UPLINKS = (UplinkConfig("isp-a", "wan0"), UplinkConfig("isp-b", "wan1", rank=1))
HEALTH = HealthConfig(probes=tuple(Probe("icmp", address) for address in FAR.values()))
CONFIG = Config(UPLINKS, health=HEALTH, dns=SERVED)
ADDRESSES = {
    "wan0": ("203.0.113.10", "2001:db8:a::10"),
    "wan1": ("198.51.100.10", "2001:db8:b::10"),
}
ROUTERS = {"wan0": ("203.0.113.1", "2001:db8:a::1"), "wan1": ("198.51.100.1", "2001:db8:b::1")}
NAMES = {"isp-a": "wan0", "isp-b": "wan1"}
_NETWORKS = {
    "wan0": ("203.0.113.0/24", "2001:db8:a::/48"),
    "wan1": ("198.51.100.0/24", "2001:db8:b::/48"),
}
T = TypeVar("T")
Fate = Callable[[f.SendProbe], e.ProbeOutcome]


def facts(up: Iterable[str] = ("wan0", "wan1")) -> Facts:
    """The host before anything of ours is installed; links that are down have no addresses."""
    up = tuple(up)
    routes = []
    for n, dev in enumerate(up):
        for family, network, router in zip(FAMILIES, _NETWORKS[dev], ROUTERS[dev], strict=True):
            metric = 100 * n + 1024 * (family == 6)
            routes.append(Route(family, TABLE_MAIN, network, hops=(Hop(dev),), protocol=2))
            hops = (Hop(dev, router),)
            routes.append(Route(family, TABLE_MAIN, "default", metric, hops=hops, protocol=3))
    return Facts(
        links=(
            Link(1, "lo", loopback=True),
            *(Link(10 + n, dev, dev in up, dev in up) for n, dev in enumerate(ADDRESSES)),
        ),
        addresses=tuple(
            Address(family, dev, address, 24 if family == 4 else 48)
            for dev in up
            for family, address in zip(FAMILIES, ADDRESSES[dev], strict=True)
        ),
        routes=tuple(routes),
        rules=tuple(
            Rule(family, priority, table=table, protocol=2)
            for family in FAMILIES
            for priority, table in ((0, 255), (32766, 254))
        ),
    )


@dataclass
class Host:
    """`done` holds the effects that were performed, `turns` the same turn by turn of the engine.
    `dead` are (interface, family) beyond whose router nothing answers; `refuses` says which
    operations the kernel won't have, `locked` how often another ifdefault is at work."""

    facts: Facts = field(default_factory=facts)
    config: Config = CONFIG
    dead: set[tuple[str, Family]] = field(default_factory=set)
    refuses: Callable[[Operation], bool] = lambda _: False
    fate: Fate | None = None  # of servers' checks
    lost_checks: list[e.ProbeOutcome] | None = None  # of servers: kept for the test to bring
    locked: int = 0
    unsaved: tuple[Problem, ...] = ()  # why nothing can be put on disk
    groups: dict[str, int] = field(default_factory=dict)  # control groups, by path
    enters: bool = True  # whether the kernel is told of a group's command
    now: float = START_S
    state: State = field(default_factory=State)
    loaded: Loaded = ()
    controller: Controller = field(default_factory=Controller)
    turns: list[list[f.Effect]] = field(default_factory=list)
    _due: list[tuple[float, int, e.Event]] = field(default_factory=list)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    # --- what a test does -----------------------------------------------------------------

    def start(self, *started: e.Event, settle_s: float = 5.0) -> Host:
        """Start the daemon, and let it probe."""
        self.receive(*(started or (e.Started(self.config),)))
        self.receive(e.FrontendStarted())
        self.run(settle_s)
        return self.forget()

    def forget(self) -> Host:
        self.turns.clear()
        return self

    def receive(self, *events: e.Event) -> list[f.Effect]:
        """A turn of the engine with these events; return the effects that were performed."""
        done: list[f.Effect] = []
        waiting = list(events)
        while waiting:
            taken, waiting = waiting, []
            for effect in self.controller.receive(taken, self.now):
                done.append(effect)
                if (answer := self._perform(effect)) is not None:
                    waiting.append(answer)
        self.turns.append(done)
        return done

    def run(self, seconds: float) -> None:
        """Let time pass, and run everything that is due in it."""
        until_s = self.now + seconds
        while True:
            next_s = min(self.controller.wake_s, self._due[0][0] if self._due else until_s)
            if next_s > until_s:
                self.now = until_s
                return
            self.now = max(self.now, next_s)
            due: list[e.Event] = []
            while self._due and self._due[0][0] <= self.now:
                due.append(heapq.heappop(self._due)[2])
            if not due and next_s == until_s < self.controller.wake_s:
                return
            self.receive(*(due or [e.Woke()]))

    def take_due(self) -> list[tuple[float, int, e.Event]]:
        """Remove and return the events that were due; the test may deliver them."""
        due, self._due = self._due, []
        return due

    def black_hole(self, dev: str, *families: Family) -> None:
        self.dead |= {(dev, family) for family in families or FAMILIES}

    def revive(self, dev: str) -> None:
        self.dead -= {(dev, family) for family in FAMILIES}

    def set_carrier(self, dev: str, carrier: bool) -> None:
        """As the kernel reports it."""
        links = (replace(k, carrier=carrier) if k.name == dev else k for k in self.facts.links)
        self.facts = replace(self.facts, links=tuple(links))
        index = next(link.index for link in self.facts.links if link.name == dev)
        self.change(LinkChanged(dev, index, up=True, carrier=carrier))

    def change(self, *changes: KernelChange) -> None:
        self.receive(e.KernelChanged(changes or (ObjectChanged("rule", ours=True),)))

    # --- what a test asks -----------------------------------------------------------------

    @property
    def done(self) -> list[f.Effect]:
        return [effect for turn in self.turns for effect in turn]

    def every(self, kind: type[T]) -> list[T]:
        return [effect for effect in self.done if isinstance(effect, kind)]

    def logged(self, kind: str = "") -> list[str]:
        return [log.text for log in self.every(f.Log) if kind in ("", log.kind)]

    def answers(self, request: int) -> list[f.Answer]:
        return [answer for answer in self.every(f.Answer) if answer.id == request]

    def answer(self, request: int) -> f.Answer:
        """The only one."""
        [found] = self.answers(request)
        return found

    def default(self, family: Family = 4) -> str:
        """The interface of the primary uplink, by the decision."""
        decision = self.controller.state.decision
        order = decision.ranking(family) if decision else ()
        return NAMES[order[0]] if order else ""

    def leaves_by(self, family: Family = 4) -> str:
        """The interface of a new connection, according to the fake kernel."""
        hop = Fib.of(self.facts).lookup(Flow(family, FAR[family])).hop
        return hop.dev if hop else ""

    def names(self) -> set[str]:
        """The addresses of www.example."""
        published = self.controller.names.published
        return {record.address for each in published for record in each.addresses}

    # --- as the engine does it ------------------------------------------------------------

    def _perform(self, effect: f.Effect) -> e.Event | None:
        match effect:
            case f.Look() if self._is_locked():
                return e.LookFailed((Problem("", "another ifdefault is at work"),), locked=True)
            case f.Look(questions=questions):
                observation = replace(self._observed(), answers=ask(Fib.of(self.facts), questions))
                return e.Observed(observation, LOOK_S)
            case f.Converge(prepared):
                return self._converge(prepared)
            case f.Commit(prepared):
                return self._commit(prepared)
            case f.SendProbe():
                self._send(effect)
            case f.SaveForced(number):
                return e.ForcedSaved(number, self.unsaved)
            case f.EnterGroup(number, uplink=uplink):
                path = f"/ifdefault/{uplink}"
                self.groups[path] = 7
                if self.enters:
                    self.state = replace(self.state, runs=self.state.runs | {path: uplink})
                return e.GroupEntered(number, path, "/was")
            case f.EndConnections(uplink, family) | f.ReturnConnections(uplink, family):
                self._later(RTT_S, e.ConnectionsEnded(uplink, family, sockets=1))
        return None

    def _is_locked(self) -> bool:
        self.locked -= self.locked > 0
        return self.locked > 0

    def _observed(self) -> Observation:
        return Observation(self.facts, self.state, self.loaded, tuple(self.groups.items()))

    def _converge(self, prepared: Prepared) -> e.Applied:
        refused = []
        for operation in prepared.operations:
            if self.refuses(operation):
                refused.append(Problem(type(operation).__name__, "operation not permitted"))
            else:
                self.facts = perform(self.facts, operation)
        return e.Applied(self._noted(prepared), LOOK_S, tuple(refused))

    def _commit(self, prepared: Prepared) -> e.Committed | e.CommitFailed:
        if any(map(self.refuses, prepared.operations)):
            return e.CommitFailed((Problem("rule", "operation not permitted"),))
        for operation in prepared.operations:
            self.facts = perform(self.facts, operation)
        return e.Committed(self._noted(prepared), LOOK_S)

    def _noted(self, prepared: Prepared) -> Observation:
        self.loaded = record_tables(self.facts, prepared.desired)
        self.state = prepared.state
        facts, state, loaded = self.facts, self.state, self.loaded
        answers = ask(Fib.of(facts), prepared.questions)
        was = prepared.observation
        return replace(was, facts=facts, state=state, loaded=loaded, answers=answers)

    def _send(self, probe: f.SendProbe) -> None:
        if self.lost_checks is not None and probe.path == f.SERVER_CHECKS:
            lost = e.ProbeOutcome(probe.path, probe.seq, "lost", detail="no answer")
            self.lost_checks.append(lost)
            return
        if self.fate is not None and probe.path == f.SERVER_CHECKS:
            self._later(0.0, self.fate(probe))
            return
        source = probe.source
        silent = source and (source.dev, source.family) in self.dead
        if silent and source and probe.address != source.gateway:
            self._later(probe.timeout_ms / 1000, e.ProbeOutcome(probe.path, probe.seq, "lost"))
        else:
            rtt_us = round(RTT_S * 1e6)
            outcome = e.ProbeOutcome(probe.path, probe.seq, "answered", rtt_us)
            self._later(RTT_S, outcome)

    def _later(self, after_s: float, event: e.Event) -> None:
        heapq.heappush(self._due, (self.now + after_s, next(self._count), event))


def kinds(effects: Sequence[f.Effect]) -> list[type[f.Effect]]:
    return [type(effect) for effect in effects]

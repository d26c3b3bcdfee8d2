"""The fake kernel: facts that change, notifications of it, and where packets go.

Rules: operations are performed by tests/property/fakekernel.py, and refused if the real kernel
would refuse them. There are notifications of others' changes only. Side effects of the real kernel
are simulated: when a link goes down its routes are deleted, ours too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ifdefault.model.config import Config, Family
from ifdefault.model.flow import Answers, Flow, Question
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_MAIN,
    Address,
    Facts,
    Hop,
    Link,
    Loaded,
    Neighbour,
    Operation,
    Route,
    Rule,
    SetSysctl,
)
from ifdefault.model.kernel_events import KernelChange, LinkChanged, ObjectChanged
from ifdefault.plan.lookup import Fib, LookupResult
from ifdefault.plan.self_check import as_reply
from tests.property import fakekernel
from tests.property.hosts import KERNEL

Way = tuple[str, str]  # device, gateway
FAR: dict[Family, str] = {4: "192.0.2.99", 6: "2001:db8:ffff::99"}  # a client


class Kernel:
    """`version` counts changes; `others` counts those that weren't ours, the last one at
    `others_s`."""

    def __init__(self, facts: Facts, tell: Callable[[tuple[KernelChange, ...]], None]) -> None:
        self.facts = facts
        self.version = 0
        self.others, self.others_s = 0, 0.0
        self.groups: dict[str, int] = {}  # control groups with a process, by id
        self.locked_s = 0.0  # until when another ifdefault holds the lock
        self.touched: set[str] = set()  # sysctls that others changed
        self._tell = tell
        self._fib: Fib | None = None
        self._ways: dict[Flow, Way | None] = {}

    # --- ours -----------------------------------------------------------------------------

    def perform(self, operation: Operation) -> None:
        """Raises if the real kernel would refuse it."""
        self._become(fakekernel.perform(self.facts, operation))

    def observe(
        self,
        config: Config,
        state: State,
        loaded: Loaded,
        questions: tuple[Question, ...] = (),
    ) -> Observation:
        mine = (path for rule in config.outgoing.rules for path in rule.cgroups)
        paths = dict.fromkeys((*state.runs, *mine))
        groups = tuple((path, self.groups.get(path, 0)) for path in paths)
        return Observation(self.facts, state, loaded, groups, answers=self.answers(questions))

    def answers(self, questions: tuple[Question, ...]) -> Answers:
        return tuple((each, as_reply(self.lookup(each.flow))) for each in questions)

    def way(self, flow: Flow) -> Way | None:
        """The device and gateway that a packet leaves by."""
        if flow not in self._ways:
            hop = self.lookup(flow).hop
            self._ways[flow] = (hop.dev, hop.gateway) if hop else None
        return self._ways[flow]

    def lookup(self, flow: Flow) -> LookupResult:
        self._fib = self._fib or Fib.of(self.facts)
        return self._fib.lookup(flow)

    def default(self, family: Family) -> Way | None:
        return self.way(Flow(family, FAR[family]))

    def _become(self, facts: Facts) -> None:
        if facts != self.facts:
            self.facts = facts
            self.version += 1
            self._fib, self._ways = None, {}

    # --- others' --------------------------------------------------------------------------

    def change(self, now: float, facts: Facts, *events: KernelChange) -> None:
        """A change by others, or by the kernel itself."""
        self._become(facts)
        self.others, self.others_s = self.others + 1, now
        if events:
            self._tell(events)

    def link(self, dev: str) -> Link | None:
        return next((link for link in self.facts.links if link.name == dev), None)

    def set_link(self, now: float, dev: str, *, up: bool, carrier: bool) -> None:
        """Down deletes all its routes, and its IPv6 addresses."""
        facts, link = self.facts, self.link(dev)
        if link is None:
            return
        now_link = replace(link, up=up, carrier=carrier)
        links = tuple(now_link if one == link else one for one in facts.links)
        if not up:
            facts = replace(
                facts,
                routes=_without_device(facts.routes, dev),
                addresses=tuple(a for a in facts.addresses if (a.dev, a.family) != (dev, 6)),
                neighbours=tuple(n for n in facts.neighbours if n.dev != dev),
            )
        self.change(now, replace(facts, links=links), _told(now_link))

    def drop_link(self, now: float, dev: str) -> None:
        facts, link = self.facts, self.link(dev)
        if link is None:
            return
        there = replace(
            facts,
            links=tuple(one for one in facts.links if one != link),
            routes=_without_device(facts.routes, dev),
            addresses=tuple(a for a in facts.addresses if a.dev != dev),
            neighbours=tuple(n for n in facts.neighbours if n.dev != dev),
            sysctls=tuple((name, v) for name, v in facts.sysctls if f"/{dev}/" not in name),
        )
        self.change(now, there, LinkChanged(dev, link.index, gone=True))

    def add_link(self, now: float, link: Link, sysctls: Iterable[tuple[str, str]]) -> None:
        facts = self.facts
        facts = replace(facts, links=(*facts.links, link), sysctls=(*facts.sysctls, *sysctls))
        self.change(now, facts, _told(link))

    def add_address(self, now: float, address: Address, prefix: str) -> None:
        """Also adds the route to its prefix, as the kernel does."""
        facts, v6 = self.facts, address.family == 6
        connected = Route(
            address.family,
            TABLE_MAIN,
            prefix,
            256 if v6 else 0,
            hops=(Hop(address.dev),),
            src="" if v6 else address.address,
            scope=0 if v6 else 253,
            protocol=KERNEL,
        )
        addresses = (*(a for a in facts.addresses if a != address), address)
        routes = (*(r for r in facts.routes if r != connected), connected)
        facts = replace(facts, addresses=addresses, routes=routes)
        self.change(now, facts, ObjectChanged("address"), ObjectChanged("route"))

    def drop_address(self, now: float, dev: str, family: Family) -> None:
        """Also deletes all routes of main by its device, and those that have it as source."""
        facts = self.facts
        gone = {a.address for a in facts.addresses if (a.dev, a.family) == (dev, family)}
        if not gone:
            return
        routes = tuple(
            r
            for r in facts.routes
            if r.family != family
            or (
                r.src not in gone
                and (r.table != TABLE_MAIN or all(hop.dev != dev for hop in r.hops))
            )
        )
        addresses = tuple(a for a in facts.addresses if a.address not in gone)
        facts = replace(facts, addresses=addresses, routes=routes)
        self.change(now, facts, ObjectChanged("address"), ObjectChanged("route"))

    def add_route(self, now: float, route: Route) -> None:
        if route not in self.facts.routes:
            facts = replace(self.facts, routes=(*self.facts.routes, route))
            self.change(now, facts, _told_route(route))

    def drop_route(self, now: float, route: Route) -> None:
        if route in self.facts.routes:
            routes = tuple(r for r in self.facts.routes if r != route)
            self.change(now, replace(self.facts, routes=routes), _told_route(route))

    def add_rule(self, now: float, rule: Rule) -> None:
        rules = (*self.facts.rules, rule)
        rules = tuple(sorted(rules, key=lambda r: (r.family, r.priority)))
        self.change(now, replace(self.facts, rules=rules), _told_rule(rule))

    def drop_rule(self, now: float, rule: Rule) -> None:
        rules = list(self.facts.rules)
        if rule in rules:
            rules.remove(rule)
            self.change(now, replace(self.facts, rules=tuple(rules)), _told_rule(rule))

    def drop_table(self, now: float, name: str) -> None:
        tables = tuple(each for each in self.facts.tables if each[0] != name)
        self.change(now, replace(self.facts, tables=tables), ObjectChanged("nft", ours=True))

    def set_sysctl(self, now: float, name: str, value: str) -> None:
        """The kernel sends no notification of it."""
        self.touched.add(name)
        was = dict(self.facts.sysctls)[name]
        self.change(now, fakekernel.perform(self.facts, SetSysctl(name, value, was)))

    def set_neighbour(self, now: float, neighbour: Neighbour) -> None:
        known = tuple(
            n
            for n in self.facts.neighbours
            if (n.dev, n.address) != (neighbour.dev, neighbour.address)
        )
        self.change(now, replace(self.facts, neighbours=(*known, neighbour)))


def _without_device(routes: tuple[Route, ...], dev: str) -> tuple[Route, ...]:
    return tuple(r for r in routes if all(hop.dev != dev for hop in r.hops) or not r.hops)


def _told(link: Link) -> LinkChanged:
    return LinkChanged(link.name, link.index, link.up, link.carrier)


def _told_route(route: Route) -> ObjectChanged:
    return ObjectChanged("route", ours=route.protocol == PROTOCOL)


def _told_rule(rule: Rule) -> ObjectChanged:
    return ObjectChanged("rule", ours=rule.protocol == PROTOCOL)

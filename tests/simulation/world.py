"""Everything outside the daemon: clock, kernel, uplinks, disk, and counters of what happened."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from ifdefault.daemon.controller.effects import Save
from ifdefault.daemon.controller.events import Event, KernelChanged
from ifdefault.model.config import Config, Family
from ifdefault.model.health import Forced
from ifdefault.model.host import State
from ifdefault.model.kernel import Loaded
from ifdefault.model.kernel_events import KernelChange
from tests.simulation import host
from tests.simulation.clock import Clock
from tests.simulation.internet import Uplink
from tests.simulation.kernel import Kernel, Way

NOTICE_S = 0.02  # the longest delay of a kernel notification


@dataclass
class Disk:
    """What survives a daemon. `config`: the file's content."""

    config: Config
    saved: Save = field(default_factory=lambda: Save(()))
    forced: dict[str, Forced] = field(default_factory=dict)
    drains: dict[str, float] = field(default_factory=dict)  # when they end
    state: State = field(default_factory=State)
    loaded: Loaded = ()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # updates' own records


class World:
    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.clock = Clock()
        self.uplinks = host.draw_uplinks(self.rng)
        self.kernel = Kernel(host.draw_facts(self.rng, self.uplinks), self.tell_kernel)
        self.disk = Disk(host.draw_config(self.rng, self.uplinks))
        self.counts: Counter[str] = Counter()
        self.servers = dict.fromkeys(host.SERVERS, True)  # of forwards: whether they answer
        self.traffic = False  # whether the host's connections are looked at
        self.resolves = True  # whether names do
        self.inbox: list[Event] = []  # for the daemon
        self.carried: dict[str, tuple[int, int]] = {}  # bytes by uplink, and its link
        self.total: dict[str, int] = {}  # bytes that it has carried over all links
        self._names = {u.name: u for u in self.uplinks}
        self._devices = {u.dev: u for u in self.uplinks}

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def uplink(self, name: str) -> Uplink:
        return self._names[name]

    def any_dead(self) -> bool:
        return any(u.dead(family) for u in self.uplinks for family in u.families)

    def by_device(self, dev: str) -> Uplink | None:
        return self._devices.get(dev)

    def by_way(self, way: Way | None, family: Family) -> Uplink | None:
        """The uplink that a packet leaves by."""
        uplink = self._devices.get(way[0]) if way else None
        return uplink if uplink and family in uplink.lines else None

    def complete(self, uplink: Uplink, family: Family) -> bool:
        """Whether the kernel has all that the uplink needs."""
        facts = self.kernel.facts
        has_route = not uplink.learned or uplink.default(family) in facts.routes
        return uplink.there and uplink.up and has_route and uplink.own(family) in facts.addresses

    def set_link(self, uplink: Uplink) -> None:
        uplink.moved_s = self.clock.now
        self.kernel.set_link(self.clock.now, uplink.dev, up=uplink.up, carrier=uplink.carrier)

    def tell_kernel(self, events: tuple[KernelChange, ...]) -> None:
        wait_s = self.rng.uniform(0.0, NOTICE_S)
        self.clock.answer(wait_s, lambda: self.inbox.append(KernelChanged(events)))

"""The fake frontend: it sends probes, resolves names, and may end at any time.

Rules: when it ends, everything that it was doing is lost. A probe is bound to its device, and ICMP
needs a socket that was opened before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from random import Random

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.model.health import TcpStats, Verdict
from tests.simulation import host
from tests.simulation.internet import fate
from tests.simulation.kernel import Way
from tests.simulation.world import World

NO_WAY_S, RESOLVE_S, AGAIN_S = 0.001, 0.05, 5.0


class Frontend:
    def __init__(self, world: World) -> None:
        self.world, self.alive = world, False
        self._life = 0
        self._sockets: dict[int, f.ProbeSource] = {}
        self._names: tuple[str, ...] = ()
        self._rng = Random(f"{world.seed} packets")

    def start(self) -> None:
        self.alive = True
        self.world.inbox.append(e.FrontendStarted())
        self.resolve(self._names)

    def end(self) -> None:
        self.alive = False
        self._life += 1
        self._sockets.clear()

    def close(self, path: int) -> None:
        self._sockets.pop(path, None)

    def _mine(self, wait_s: float, act: Callable[[], None]) -> None:
        """Do it later, if this frontend is still running then."""
        life = self._life
        self.world.clock.answer(wait_s, lambda: act() if self._life == life else None)

    def open(self, path: int, source: f.ProbeSource) -> None:
        facts = self.world.kernel.facts
        link = self.world.kernel.link(source.dev)
        there = any(a.address == source.address for a in facts.addresses)
        if link is None or link.index != source.index or not there:
            self.world.inbox.append(e.SocketFailed(path))
        elif self.alive:
            self._sockets[path] = source

    def probe(self, probe: f.SendProbe) -> None:
        if not self.alive:
            return
        if probe.path == f.SERVER_CHECKS:
            there = self.world.servers[probe.address]
            self._outcome(0.001, probe, "answered", detail="" if there else "refused")
            return
        source = probe.source
        assert source is not None
        uplink, way = self.world.by_device(source.dev), self._way(probe, source)
        if uplink is None or way is None:
            self._outcome(NO_WAY_S, probe, "local")
            return
        if way[1] != uplink.gateway(source.family):
            line = uplink.lines[source.family]
            line.misled_s, line.taught = self.world.clock.now, True
        timeout_s = probe.timeout_ms / 1000
        found = fate(uplink, source.family, way, probe.address, timeout_s, self._rng)
        self._outcome(found.after_s, probe, found.verdict)
        if found.late_s < inf:
            self._outcome(found.late_s, probe, "answered")

    def _way(self, probe: f.SendProbe, source: f.ProbeSource) -> Way | None:
        """A probe is bound to its device and its address; ICMP needs an open socket."""
        link = self.world.kernel.link(source.dev)
        if link is None or link.index != source.index:
            return None
        if probe.kind == "icmp" and self._sockets.get(probe.path) != source:
            return None
        if probe.address == source.gateway:
            return source.dev, source.gateway
        flow = host.probe_flow(
            source.family, probe.address, source.address, source.dev, source.mark
        )
        return self.world.kernel.way(flow)

    def _outcome(
        self, after_s: float, probe: f.SendProbe, verdict: Verdict, detail: str = ""
    ) -> None:
        rtt_us = round(after_s * 1e6) if verdict == "answered" else 0
        outcome = e.ProbeOutcome(probe.path, probe.seq, verdict, rtt_us, detail)
        source = probe.source

        def tell() -> None:
            uplink = self.world.by_device(source.dev) if source else None
            if uplink and source and verdict == "answered":
                uplink.lines[source.family].answered_s = self.world.clock.now
            self.world.inbox.append(outcome)

        self._mine(after_s, tell)

    def resolve(self, names: tuple[str, ...]) -> None:
        self._names = names
        if self.alive:
            for name in names:
                self._mine(RESOLVE_S, partial(self._resolve, name))

    def _resolve(self, name: str) -> None:
        if self.world.resolves:
            self.world.inbox.append(e.NameResolved(name, host.PROBED_ADDRESSES))
        elif name in self._names:
            self.world.inbox.append(e.NameResolved(name, error="timed out"))
            self._mine(AGAIN_S, partial(self._resolve, name))

    def see_traffic(self) -> None:
        """Statistics of the host's own connections: they progress where the uplink works."""
        stats = []
        for uplink in self.world.uplinks:
            for family, line in uplink.lines.items():
                dead = uplink.dead(family) or line.kind == "burst"
                told = TcpStats(5, stalled=4) if dead else TcpStats(5, progressed=5)
                if not dead:
                    line.answered_s = self.world.clock.now
                stats.append((uplink.address(family), told))
        self.world.inbox.append(e.TrafficSeen(tuple(stats)))

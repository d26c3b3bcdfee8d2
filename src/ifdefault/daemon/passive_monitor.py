"""The traffic itself: how the host's own TCP connections fare, and what links carry.

Rules: it reads and tells (TrafficSeen); what follows is the controller's. It looks less often where
looking is dear: at most one part in fifty of a core.
"""

from __future__ import annotations

from collections.abc import Mapping

from ifdefault.daemon.controller.effects import Watch
from ifdefault.daemon.controller.events import TrafficSeen
from ifdefault.kernel.link_stats import LinkStatsReader
from ifdefault.kernel.tcp_stats import TcpMonitor

_LOOK_S = 0.3
_COST_SHARE = 50
_RATES_S = 2.0


class PassiveMonitor:
    def __init__(self) -> None:
        self._tcp = TcpMonitor()
        self._counters = LinkStatsReader(())
        self._looked_s = 0.0
        self._on_link: tuple[str, ...] = ()
        self._carried: dict[str, tuple[int, int]] = {}
        self._carried_s = 0.0
        self.rates: dict[str, tuple[float, float]] = {}  # uplink: bit/s in, out

    def follow(self, watch: Watch) -> None:
        if watch.on_link != self._on_link:
            self._on_link = watch.on_link
            self._tcp.exclude(watch.on_link)

    def look(self, now: float) -> TrafficSeen | None:
        """What is seen of connections, if anything is."""
        stats = tuple(sorted(self._tcp.read(now).items()))
        since_s, self._looked_s = self._looked_s, now
        return TrafficSeen(since_s, stats) if stats else None

    @property
    def next_s(self) -> float:
        """When to look again."""
        return self._looked_s + max(_LOOK_S, _COST_SHARE * self._tcp.cost_s)

    def measure(self, now: float, interfaces: Mapping[str, str]) -> None:
        """Refresh `rates`; `interfaces` maps uplinks to theirs."""
        if now - self._carried_s < _RATES_S:
            return
        carried = {dev: (t.bytes_in, t.bytes_out) for dev, t in self._counters.read().items()}
        if carried.keys() != set(interfaces.values()):  # others, or one that was made anew
            self._counters.close()
            self._counters = LinkStatsReader(interfaces.values())
        span_s = now - self._carried_s
        self.rates = {
            name: (
                8 * (carried[dev][0] - self._carried[dev][0]) / span_s,
                8 * (carried[dev][1] - self._carried[dev][1]) / span_s,
            )
            for name, dev in interfaces.items()
            if dev in carried and dev in self._carried
        }
        self._carried, self._carried_s = carried, now

"""Passive monitoring: statistics of the host's own TCP connections, and traffic rates of links.

Rules: the statistics are passed on as TrafficSeen; the controller decides what they mean. Reading
takes at most 1/50 of a CPU core: where it takes longer, it is done less often.
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
        self._ended = False
        self._bytes: dict[str, tuple[int, int]] = {}  # in, out, by interface
        self._bytes_s = 0.0  # when they were read
        self.rates: dict[str, tuple[float, float]] = {}  # uplink: bit/s in, out

    def update(self, watch: Watch) -> None:
        self._ended = watch.ended
        if watch.on_link != self._on_link:
            self._on_link = watch.on_link
            self._tcp.exclude(watch.on_link)

    def look(self, now: float) -> TrafficSeen | None:
        """Statistics since the last call; None without connections."""
        stats = tuple(sorted(self._tcp.read(now, ended=self._ended).items()))
        self._looked_s = now
        return TrafficSeen(stats) if stats else None

    @property
    def next_s(self) -> float:
        """When to call `look` again."""
        return self._looked_s + max(_LOOK_S, _COST_SHARE * self._tcp.cost_s)

    def measure(self, now: float, interfaces: Mapping[str, str]) -> None:
        """Update `rates`; `interfaces` maps uplinks to their interfaces."""
        if now - self._bytes_s < _RATES_S:
            return
        counts = {dev: (t.bytes_in, t.bytes_out) for dev, t in self._counters.read().items()}
        if counts.keys() != set(interfaces.values()):  # the config changed, or a link was recreated
            self._counters.close()
            self._counters = LinkStatsReader(interfaces.values())
        span_s = now - self._bytes_s
        self.rates = {
            name: (
                8 * (counts[dev][0] - self._bytes[dev][0]) / span_s,
                8 * (counts[dev][1] - self._bytes[dev][1]) / span_s,
            )
            for name, dev in interfaces.items()
            if dev in counts and dev in self._bytes
        }
        self._bytes, self._bytes_s = counts, now

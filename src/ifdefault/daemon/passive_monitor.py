"""Passive monitoring: statistics of the host's own TCP connections, and the traffic of links.

Rules: the statistics are passed on as TrafficSeen, the bytes of links as TrafficCounted; the
controller decides what they mean. Reading the statistics takes at most 1/50 of a CPU core: where it
takes longer, it is done less often. Bytes are counted also where there are no statistics.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from ifdefault.daemon.controller.effects import Watch
from ifdefault.daemon.controller.events import TrafficCounted, TrafficSeen
from ifdefault.kernel.link_stats import LinkStats, LinkStatsReader
from ifdefault.kernel.tcp_stats import TcpMonitor
from ifdefault.model.config import Config, UplinkConfig
from ifdefault.model.health import LinkCounter
from ifdefault.model.kernel import Uplink
from ifdefault.model.report import UplinkCounters

_LOOK_S = 0.3
_COST_SHARE = 50
_RATES_S = 2.0
_READ_S = 1.0
_COUNT_S = 1.0


class PassiveMonitor:
    def __init__(self) -> None:
        self._tcp = TcpMonitor()
        self._counters = LinkStatsReader(())
        self._looked_s = 0.0
        self._on_link: tuple[str, ...] = ()
        self._ended = False
        self._connections: dict[str, tuple[int, int]] = {}  # and of them subflows, by local address
        self._read_s = 0.0  # when the byte counters were read
        self._read: dict[str, tuple[int, int]] = {}  # in, out, by interface
        self._bytes: dict[str, tuple[int, int]] = {}  # as `rates` were measured from
        self._bytes_s = 0.0  # when those were read
        self._counted_s = -_COUNT_S
        self.rates: dict[str, tuple[float, float]] = {}  # uplink: bit/s in, out

    def close(self) -> None:
        self._tcp.close()
        self._counters.close()

    def update(self, watch: Watch) -> None:
        self._ended = watch.ended
        if watch.on_link != self._on_link:
            self._on_link = watch.on_link
            self._tcp.exclude(watch.on_link)

    def look(self, now: float) -> TrafficSeen | None:
        """Statistics since the last call; None without connections."""
        stats = tuple(sorted(self._tcp.read(now, ended=self._ended).items()))
        self._connections = {address: (tcp.sockets, tcp.subflows) for address, tcp in stats}
        self._looked_s = now
        return TrafficSeen(stats) if stats else None

    @property
    def next_s(self) -> float:
        """When to call `look` again."""
        return self._looked_s + max(_LOOK_S, _COST_SHARE * self._tcp.cost_s)

    def poll(self, now: float, config: Config, uplinks: Iterable[Uplink]) -> TrafficCounted | None:
        """Measure rates and count bytes, as far as it is time for it."""
        counts = None
        with suppress(OSError):  # out of memory or files: try again soon
            counts = self.count(now, config)  # first: rates do with what it has read
            self.measure(now, {uplink.name: uplink.interface for uplink in uplinks})
        return counts

    def measure(self, now: float, interfaces: Mapping[str, str]) -> None:
        """Update `rates`; `interfaces` maps uplinks to their interfaces."""
        if now - self._bytes_s < _RATES_S:
            return
        counts = self._read_bytes(now, set(interfaces.values()))
        span_s = self._read_s - self._bytes_s
        self.rates = {
            name: (
                8 * (counts[dev][0] - self._bytes[dev][0]) / span_s,
                8 * (counts[dev][1] - self._bytes[dev][1]) / span_s,
            )
            for name, dev in interfaces.items()
            if dev in counts and dev in self._bytes
        }
        self._bytes, self._bytes_s = counts, self._read_s

    def count(self, now: float, config: Config) -> TrafficCounted | None:
        """The bytes of all uplinks and the time, once a second, if the config needs them."""
        if now < self._counted_s + _COUNT_S or not any(map(_needs_counters, config.uplinks)):
            return None
        self._counted_s = now
        read = self._read_bytes(now, {uplink.interface for uplink in config.uplinks}, at_most_s=0.0)
        indexes = self._counters.indexes
        counters = tuple(
            LinkCounter(uplink.name, indexes[uplink.interface], *read[uplink.interface])
            for uplink in config.uplinks
            if uplink.interface in read
        )
        return counted(counters)

    def counters(self, now: float, uplinks: Iterable[Uplink]) -> tuple[UplinkCounters, ...]:
        """The bytes are at most a second old. Of the connections, those that `look` reads."""
        uplinks = tuple(uplinks)
        counts = self._read_bytes(now, {uplink.interface for uplink in uplinks})
        return tuple(
            UplinkCounters(
                uplink.name,
                *counts.get(uplink.interface, (0, 0)),
                *self._counted(uplink),
            )
            for uplink in uplinks
        )

    def _counted(self, uplink: Uplink) -> tuple[int, int]:
        counts = [self._connections.get(a.address, (0, 0)) for a in uplink.addresses]
        return sum(sockets for sockets, _ in counts), sum(subflows for _, subflows in counts)

    def _read_bytes(
        self, now: float, interfaces: set[str], at_most_s: float = _READ_S
    ) -> dict[str, tuple[int, int]]:
        """In and out, by interface; at most so old."""
        if now >= self._read_s + at_most_s:
            read: dict[str, LinkStats] = {}
            with suppress(OSError):
                read = self._counters.read()
            if read.keys() != interfaces:  # the config changed, or a link was created again
                self._counters.close()
                self._counters = LinkStatsReader(interfaces)
                read = self._counters.read()
            self._read_s = now
            self._read = {dev: (t.bytes_in, t.bytes_out) for dev, t in read.items()}
        return self._read


def counted(counters: tuple[LinkCounter, ...] = ()) -> TrafficCounted:
    """These counters, as of now."""
    time.tzset()  # the administrator may have set another time zone
    at_s = time.time()
    local_s = at_s + time.localtime(at_s).tm_gmtoff
    return TrafficCounted(at_s, local_s, counters, time.clock_gettime(time.CLOCK_BOOTTIME))


def _needs_counters(uplink: UplinkConfig) -> bool:
    return bool(uplink.is_counted or uplink.hours or uplink.capacity)

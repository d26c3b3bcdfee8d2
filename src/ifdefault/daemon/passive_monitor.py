"""Evidence from the traffic itself: connections that progress, or stall, and what links carry.

Rules: it may vouch for a path or accuse it, and never decides: outsiders can open half a
connection and fall silent. It looks less often where looking is dear: at most one part in fifty
of a core.
"""

from __future__ import annotations

from collections.abc import Mapping

from ifdefault.health.path import Path
from ifdefault.kernel.link_stats import LinkStatsReader
from ifdefault.kernel.tcp_stats import TcpMonitor, TcpStats
from ifdefault.model.health import Transition
from ifdefault.model.kernel import TABLE_MAIN, Facts

_LOOK_S = 0.3
_COST_SHARE = 50
_RATES_S = 2.0
_MANY = 3  # connections that must stall together: one alone has its own reasons


class PassiveMonitor:
    def __init__(self) -> None:
        self._signs = TcpMonitor()
        self._counters = LinkStatsReader(())
        self._looked_s = 0.0
        self._on_link: tuple[str, ...] = ()
        self._carried: dict[str, tuple[int, int]] = {}
        self._carried_s = 0.0
        self.rates: dict[str, tuple[float, float]] = {}  # uplink: bit/s in, out

    def follow(self, facts: Facts) -> None:
        """Peers on the host's own links tell nothing of what is beyond them."""
        on_link = tuple(
            route.dst
            for route in facts.routes
            if route.table == TABLE_MAIN
            and route.dst != "default"
            and route.hops
            and not any(hop.gateway for hop in route.hops)
        )
        if on_link != self._on_link:
            self._on_link = on_link
            self._signs.leave_out(on_link)

    def look(self, now: float, paths: Mapping[str, Path]) -> tuple[tuple[Transition, ...], float]:
        """Look at the host's connections, by the local address of each path; return what follows,
        and when to look again."""
        told: list[Transition] = []
        for address, sign in self._signs.look(now).items():
            path = paths.get(address)
            if path is None:
                continue
            if sign.progressed:
                told += path.vouch(now, self._looked_s)  # some time since then
            elif accusation := _accusation(sign):
                path.accuse(now, accusation)
        self._looked_s = now
        return tuple(told), now + max(_LOOK_S, _COST_SHARE * self._signs.cost_s)

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


def _accusation(sign: TcpStats) -> str:
    """The same words each time: one cause starts no burst again and again."""
    if sign.stalled >= _MANY and 2 * sign.stalled >= sign.sockets:
        return "TCP connections stall"
    if sign.half_open_unanswered >= _MANY and 2 * sign.half_open_unanswered >= sign.half_open:
        return "SYN-ACKs stay unanswered"
    return ""

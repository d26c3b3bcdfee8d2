"""The servers of one zone that is updated dynamically, and which of them don't respond.

Rules: updates go to the configured servers. The servers of the zone's NS set are checked as well,
since resolvers query them. Their addresses are queried from the server that accepted the update, or
from this host's resolver if that server doesn't have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ifdefault.daemon.requests import Requests
from ifdefault.dns.update import CALM_S, choose_server, usable_ways
from ifdefault.ipc import fields
from ifdefault.model.dns import Endpoint, UpdateConfig
from ifdefault.model.health import Way

_SILENT_S = 60.0  # a server that didn't respond is tried last for so long
_MOST = 32  # servers checked besides the configured ones
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")
Pair = tuple[Endpoint, Way]


class ZoneServers:
    def __init__(self, config: UpdateConfig, requests: Requests) -> None:
        self.config = config
        self._requests = requests
        self._silent_s: dict[Pair, float] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}  # of each host in the NS set
        self._queried_s = float("-inf")
        self.unknown: tuple[str, ...] = ()  # hosts whose addresses the resolver has to look up

    # --- where to send updates --------------------------------------------------------------

    def choose(
        self, now: float, ways: Sequence[Way], failed_s: Mapping[Pair, float]
    ) -> Pair | None:
        silent = {pair: at for pair, at in self._silent_s.items() if at > now - _SILENT_S}
        latest = {pair: max(at, silent.get(pair, at)) for pair, at in failed_s.items()}
        return choose_server(self.config.servers, ways, silent | latest)

    def silent(self, now: float, pair: Pair) -> None:
        """It doesn't respond, which doesn't depend on the name."""
        self._silent_s[pair] = now

    def responds(self, pair: Pair) -> None:
        self._silent_s.pop(pair, None)

    def ways_changed(self) -> None:
        self._silent_s.clear()

    # --- which servers to check -------------------------------------------------------------

    def reachable(self, ways: Sequence[Way]) -> Iterator[tuple[Endpoint, tuple[Way, ...]]]:
        """Each server of the zone that can be reached, and by which ways."""
        listed = {Endpoint(a) for addresses in self._addresses.values() for a in addresses}
        configured = {(server.address, server.port) for server in self.config.servers}
        more = sorted(e for e in listed if (e.address, e.port) not in configured)
        for server in (*self.config.servers, *more[:_MOST]):
            if fit := usable_ways(server, ways):
                yield server, fit

    async def query_ns(self, now: float, server: Endpoint, way: Way) -> None:
        """Query a server for the zone's NS set, if it is time to."""
        if now < self._queried_s + CALM_S:
            return
        before_s, self._queried_s = self._queried_s, now  # no other task queries meanwhile
        hosts: dict[str, tuple[str, ...]] | None = None
        try:
            reply = await self._requests.query(way, server, self.config.zone, "NS")
            if not reply.error:
                names = filter(_HOST.fullmatch, reply.texts)
                hosts = {name: await self._query_addresses(server, way, name) for name in names}
        finally:
            if hosts is None:
                self._queried_s = before_s
        if hosts is not None:
            self.unknown = tuple(host for host, addresses in hosts.items() if not addresses)
            known = {host: self._addresses.get(host, ()) for host in self.unknown}
            self._addresses = hosts | known

    async def _query_addresses(self, server: Endpoint, way: Way, host: str) -> tuple[str, ...]:
        v4 = await self._requests.query(way, server, host, "A")
        v6 = await self._requests.query(way, server, host, "AAAA")
        return tuple(filter(_is_valid, (*v4.texts, *v6.texts)))

    def resolved(self, host: str, addresses: tuple[str, ...]) -> None:
        if addresses and host in self.unknown:
            self._addresses[host] = addresses


def _is_valid(text: str) -> bool:
    """Whether an address of a zone is valid in messages: an IPv4-mapped one isn't."""
    try:
        return bool(fields.address(text))
    except ValueError:
        return False

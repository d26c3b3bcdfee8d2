"""One zone that others' servers hold: which servers those are, and which of them are silent.

Rules: the configured servers come first; those of the zone's NS set are looked at as well, since
they are whom resolvers ask. Their addresses are asked of the server that takes our updates, and of
this host's resolver if that doesn't know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ifdefault.daemon.requests import Requests
from ifdefault.dns.update import CALM_S, choose_server, usable_ways
from ifdefault.ipc import fields
from ifdefault.model.dns import Endpoint, UpdateConfig
from ifdefault.model.health import Way

_SILENT_S = 60.0  # a server that gave no answer isn't the first to be tried for so long
_MOST = 32  # servers that are looked at besides the configured ones
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")
Pair = tuple[Endpoint, Way]


class ZoneServers:
    def __init__(self, config: UpdateConfig, exchanges: Requests) -> None:
        self.config = config
        self._exchanges = exchanges
        self._silent_s: dict[Pair, float] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}  # of each host in the NS set
        self._found_s = float("-inf")
        self.unknown: tuple[str, ...] = ()  # hosts whose addresses the resolver is to find

    # --- whom to tell ---------------------------------------------------------------------

    def choose(
        self, now: float, ways: Sequence[Way], failed_s: Mapping[Pair, float]
    ) -> Pair | None:
        silent = {pair: at for pair, at in self._silent_s.items() if at > now - _SILENT_S}
        latest = {pair: max(at, silent.get(pair, at)) for pair, at in failed_s.items()}
        return choose_server(self.config.servers, ways, silent | latest)

    def silent(self, now: float, pair: Pair) -> None:
        """It says nothing to anybody, whatever the name."""
        self._silent_s[pair] = now

    def speaks(self, pair: Pair) -> None:
        self._silent_s.pop(pair, None)

    def other_ways(self) -> None:
        self._silent_s.clear()

    # --- whom to look at ------------------------------------------------------------------

    def places(self, ways: Sequence[Way]) -> Iterator[tuple[Endpoint, tuple[Way, ...]]]:
        """Each server of the zone that a way leads to, and those ways."""
        listed = {Endpoint(a) for its in self._addresses.values() for a in its}
        known = {(server.address, server.port) for server in self.config.servers}
        more = sorted(each for each in listed if (each.address, each.port) not in known)
        for server in (*self.config.servers, *more[:_MOST]):
            if fit := usable_ways(server, ways):
                yield server, fit

    async def find(self, now: float, server: Endpoint, way: Way) -> None:
        """Ask a server who the zone's are, if it is time to."""
        if now < self._found_s + CALM_S:
            return
        before_s, self._found_s = self._found_s, now  # others needn't ask meanwhile
        found: dict[str, tuple[str, ...]] | None = None
        try:
            told = await self._exchanges.query(way, server, self.config.zone, "NS")
            if not told.error:
                hosts = filter(_HOST.fullmatch, told.texts)
                found = {host: await self._ask(server, way, host) for host in hosts}
        finally:
            if found is None:
                self._found_s = before_s
        if found is not None:
            self.unknown = tuple(host for host, addresses in found.items() if not addresses)
            known = {host: self._addresses.get(host, ()) for host in self.unknown}
            self._addresses = found | known

    async def _ask(self, server: Endpoint, way: Way, host: str) -> tuple[str, ...]:
        v4 = await self._exchanges.query(way, server, host, "A")
        v6 = await self._exchanges.query(way, server, host, "AAAA")
        return tuple(filter(_can_be_asked, (*v4.texts, *v6.texts)))

    def resolved(self, host: str, addresses: tuple[str, ...]) -> None:
        if addresses and host in self.unknown:
            self._addresses[host] = addresses


def _can_be_asked(text: str) -> bool:
    """Whether an address that a zone holds is one for messages: an IPv4-mapped one isn't."""
    try:
        return bool(fields.address(text))
    except ValueError:
        return False

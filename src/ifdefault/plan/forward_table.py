"""The text of the nftables table `inet ifdefault_forward`: the services of `[[forward]]`.

Chains, in the order in which a packet passes them:
  reject_services     from prerouting and output, before any DNAT: rejects connections to services
                      without a server that is up, so that the rejection has the service's address
  dnat_services       from prerouting and output: destination NAT to a server

Rules: a packet to a service costs one map lookup, however many services there are. Services on the
same uplinks share their maps. A service with one server and one port is an element of the map
`single`; every other leads to a chain, which services with the same servers share. An address that
several uplinks share offers the services of all of them. nft requires `meta l4proto` before a port
is translated.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Family, ForwardConfig, ForwardServer, Ports
from ifdefault.model.kernel import FORWARD_TABLE, Uplink
from ifdefault.plan.nft_text import IP, chain, named_set, table, values

Down = tuple[tuple[str, int], ...]  # as in Decision
_PORTS = "meta l4proto { tcp, udp }"
_KEY = "meta l4proto . th dport"
_KEY_TYPE = "inet_proto . inet_service"
_FIRST = "ct state new ct status & dnat == 0"  # UDP is new until it is answered


@dataclass(frozen=True, order=True, slots=True)
class CheckedServer:
    """A content server on a port, and how it is asked whether it is there."""

    address: str
    port: int
    check: str  # as in ForwardConfig, but never "off"


@dataclass(frozen=True, slots=True)
class Backend:
    """What becomes of a new connection to a service: `servers` are drawn by weight, each with its
    port; with a likelihood of `refused` of all weights it is refused, as it is without servers."""

    number: int  # of the [[forward]], from 0
    servers: tuple[ForwardServer, ...]
    refused: int = 0


def refusals(number: int) -> str:
    """The name of the counter of connections to a [[forward]] that were refused; it is there as
    long as some are, and begins anew with each change of the services."""
    return f"refused_{number}"


def checked_servers(forwards: Iterable[ForwardConfig]) -> tuple[CheckedServer, ...]:
    """The content servers to be checked, each once. UDP has no check of its own: it follows that
    of TCP on the same port."""
    return tuple(
        sorted(
            {
                CheckedServer(server.address, checked_port(ports, server), forward.check)
                for forward in forwards
                if forward.check != "off"
                for ports in forward.listen
                if ports.transport == "tcp"
                for server in forward.to
            }
        )
    )


def checked_port(ports: Ports, server: ForwardServer) -> int:
    """On which port a server is checked; of a range its first stands for all."""
    return server.port or ports.first


def target(
    forwards: tuple[ForwardConfig, ...],
    uplinks: Iterable[Uplink],
    protocol: str,
    address: str,
    port: int,
    down: Down = (),
) -> Backend | None:
    """Where a new connection to an address and port goes, None if it isn't to a service."""
    family = family_of(address)
    owners = {u.name for u in uplinks if any(a.address == address for a in u.addresses)}
    for number, forward in enumerate(forwards):
        for ports in forward.listen:
            if (
                ports.transport == protocol
                and ports.first <= port <= ports.last
                and owners.intersection(forward.uplinks or owners)
                and (fate := _fate(forward, ports, family, down))
            ):
                servers = tuple(
                    ForwardServer(s.address, s.port or port, s.weight) for s in fate.servers
                )
                return Backend(number, servers, fate.refused)
    return None


@dataclass(frozen=True, slots=True)
class _Fate:
    servers: tuple[ForwardServer, ...]
    refused: int


def _fate(
    forward: ForwardConfig, ports: Ports, family: Family, down: Iterable[tuple[str, int]]
) -> _Fate | None:
    """Who shares the new connections; None where the service has no server of this family."""
    known = [s for s in forward.to if family_of(s.address) == family]
    if not known:
        return None
    alive = known
    if down:
        alive = [s for s in known if (s.address, checked_port(ports, s)) not in down]
    refused = 0
    if forward.on_down == "reset" and len(alive) < len(known):
        refused = sum(s.weight for s in known) - sum(s.weight for s in alive)
    return _Fate(tuple([s for s in alive if s.weight]), refused)


# --- the table ----------------------------------------------------------------------------


class _Same:
    """A value that is the same only as itself: thousands of services take long to compare."""

    __slots__ = ("value",)

    def __init__(self, value: tuple[ForwardConfig, ...]) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


def render(forwards: tuple[ForwardConfig, ...], uplinks: tuple[Uplink, ...], down: Down) -> str:
    """The whole table, or "" where nothing is forwarded."""
    own = tuple((u.name, tuple(a.address for a in u.addresses)) for u in uplinks)
    return _rendered(_Same(forwards), own, down)


@functools.lru_cache(maxsize=4)
def _rendered(forwards: _Same, own: tuple[tuple[str, tuple[str, ...]], ...], down: Down) -> str:
    text = _Text(frozenset(down))
    groups: dict[tuple[str, ...], list[tuple[int, ForwardConfig]]] = {}
    for number, forward in enumerate(forwards.value):
        groups.setdefault(tuple(sorted(forward.uplinks)), []).append((number, forward))
    for names, members in groups.items():
        addresses = {a for name, some in own if not names or name in names for a in some}
        for family in FAMILIES:
            here = sorted(a for a in addresses if family_of(a) == family)
            if here:
                text.add_group(family, here, members)
    body = list(text.lines())
    return table(FORWARD_TABLE, body) if body else ""


@dataclass(slots=True)
class _Text:
    """The table as it grows: the parts that services share, and those of each group."""

    down: frozenset[tuple[str, int]]
    groups: int = 0
    refused: set[int] = field(default_factory=set)
    chains: dict[tuple[str, ...], str] = field(default_factory=dict)  # lines to name
    maps: list[str] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)
    refusing: list[str] = field(default_factory=list)

    def add_group(
        self, family: Family, own: Sequence[str], members: Iterable[tuple[int, ForwardConfig]]
    ) -> None:
        """Services that are offered on the same addresses of one family."""
        self.groups += 1
        ip, place = IP[family], f"{family}_{self.groups}"
        one, many, ranges, refused = self._elements(family, members)
        to, verdict = f"ipv{family}_addr . inet_service", "verdict"
        look, span = f"{_KEY} vmap", "flags interval"
        offer = [
            *self._look(f"single_{place}", one, to, f"{_PORTS} dnat {ip} to {_KEY} map"),
            *self._look(f"pools_{place}", many, verdict, look),
            *self._look(f"ranges_{place}", ranges, verdict, look, span),
        ]
        refuse = self._look(f"rejected_{place}", refused, verdict, look, span)
        if offer:
            self.maps += chain(f"dnat_{place}", offer)
            self.offers.append(f"{ip} daddr {values(own)} jump dnat_{place}")
        if refuse:
            self.maps += chain(f"reject_{place}", refuse)
            self.refusing.append(f"{ip} daddr {values(own)} jump reject_{place}")

    def _elements(
        self, family: Family, members: Iterable[tuple[int, ForwardConfig]]
    ) -> tuple[dict[str, str], ...]:
        """What the four maps hold: `one`, `many`, `range` and `refused`."""
        found: tuple[dict[str, str], ...] = ({}, {}, {}, {})
        one, many, ranges, refused = found
        for number, forward in members:
            for ports in forward.listen:
                if (fate := _fate(forward, ports, family, self.down)) is None:
                    continue
                single = ports.first == ports.last
                key = f"{ports.transport} . {ports.first}{'' if single else f'-{ports.last}'}"
                if fate.refused or not fate.servers:
                    refused[key] = f"goto {self._refusal(number, fate)}"
                if single and len(fate.servers) == 1:
                    server = fate.servers[0]
                    one[key] = f"{server.address} . {server.port or ports.first}"
                elif fate.servers:
                    pool = self._pool(family, ports.transport, fate)
                    (many if single else ranges)[key] = f"goto {pool}"
        return found

    def _look(
        self, name: str, elements: dict[str, str], to: str, statement: str, *flags: str
    ) -> list[str]:
        """A map, and the line that looks into it; nothing where it would be empty."""
        if not elements:
            return []
        listed = ("elements = {", *(f"\t{k} : {v}," for k, v in elements.items()), "}")
        self.maps += named_set(name, f"type {_KEY_TYPE} : {to}", *flags, *listed, kind="map")
        return [f"{statement} @{name}"]

    def _chain(self, kind: str, *lines: str) -> str:
        """The name of a chain of these lines; those that read alike are one."""
        return self.chains.setdefault(lines, f"{kind}_{len(self.chains)}")

    def _pool(self, family: Family, transport: str, fate: _Fate) -> str:
        """A chain that draws one of the servers."""
        goals = [(self._server(family, transport, s), s.weight) for s in fate.servers]
        return goals[0][0] if len(goals) == 1 else self._chain("pool", *_draws(goals))

    def _server(self, family: Family, transport: str, server: ForwardServer) -> str:
        """A chain that leads to one server."""
        if not server.port:  # that of the packet stays
            return self._chain("server", f"dnat {IP[family]} to {server.address}")
        address = f"[{server.address}]" if family == 6 else server.address
        where = f"{address}:{server.port}"
        return self._chain("server", f"meta l4proto {transport} dnat {IP[family]} to {where}")

    def _refusal(self, number: int, fate: _Fate) -> str:
        """A chain that refuses all, or as many as a server that is down would have got."""
        self.refused.add(number)
        counter = f"counter name {refusals(number)}"
        lines = (f"meta l4proto tcp {counter} reject with tcp reset", f"{counter} reject")
        every = self._chain("reject_all", *lines)
        if not fate.servers:
            return every
        kept = sum(server.weight for server in fate.servers)
        return self._chain("reject_some", *_draws([(every, fate.refused), ("", kept)]))

    def lines(self) -> Iterator[str]:
        if not self.offers and not self.refusing:
            return
        for number in sorted(self.refused):
            yield f'counter {refusals(number)} {{ comment "forward[{number}]" }}'
        for lines, name in self.chains.items():
            yield from chain(name, lines)
        yield from self.maps
        yield from _hooked("reject", "filter", 10, f"{_FIRST} {_PORTS}", self.refusing)
        yield from _hooked("dnat", "nat", 5, _PORTS, self.offers)


def _draws(goals: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Lines that go to one of several chains, by weight; "" goes on. No vmap: the kernel names the
    anonymous ones of a table in a time that grows with the square of their number."""
    left = sum(weight for _, weight in goals)
    for name, weight in goals:
        if name:
            drawn = f"numgen random mod {left} < {weight} " if weight < left else ""
            yield f"{drawn}goto {name}"
        left -= weight


def _hooked(name: str, kind: str, before: int, match: str, lines: Sequence[str]) -> Iterator[str]:
    """A chain that both incoming packets and the host's own go through, before others' DNAT."""
    if lines:
        yield from chain(f"{name}_services", lines)
        jump = [f"{match} jump {name}_services"]
        yield from chain(
            f"{name}_prerouting", jump, f"{kind} hook prerouting priority dstnat - {before}"
        )
        yield from chain(f"{name}_output", jump, f"{kind} hook output priority {-100 - before}")

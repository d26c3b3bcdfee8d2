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
    """A server on a port, and how it is checked."""

    address: str
    port: int
    check: str  # as in ForwardConfig, but never "off"


@dataclass(frozen=True, slots=True)
class Backend:
    """How new connections to a service are distributed: over `servers` by weight, each with its
    port; a share of `refused`, a weight as well, is refused. Without servers all are refused."""

    number: int  # of the [[forward]], from 0
    servers: tuple[ForwardServer, ...]
    refused: int = 0


def refusals(number: int) -> str:
    """The name of the counter of refused connections to a [[forward]]. It exists while connections
    are refused, and is reset whenever the services change."""
    return f"refused_{number}"


def checked_servers(forwards: Iterable[ForwardConfig]) -> tuple[CheckedServer, ...]:
    """The servers to check, without duplicates. UDP has no check of its own: the check of TCP on
    the same port applies."""
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
    """The port on which a server is checked; the first of a range."""
    return server.port or ports.first


def target(
    forwards: tuple[ForwardConfig, ...],
    uplinks: Iterable[Uplink],
    protocol: str,
    address: str,
    port: int,
    down: Down = (),
) -> Backend | None:
    """How new connections to an address and port are distributed; None if not a service."""
    family = family_of(address)
    owners = {u.name for u in uplinks if any(a.address == address for a in u.addresses)}
    for number, forward in enumerate(forwards):
        for ports in forward.listen:
            if (
                ports.transport == protocol
                and ports.first <= port <= ports.last
                and owners.intersection(forward.uplinks or owners)
                and (shares := _shares(forward, ports, family, down))
            ):
                servers = tuple(
                    ForwardServer(s.address, s.port or port, s.weight) for s in shares.servers
                )
                return Backend(number, servers, shares.refused)
    return None


@dataclass(frozen=True, slots=True)
class _Shares:
    servers: tuple[ForwardServer, ...]
    refused: int


def _shares(
    forward: ForwardConfig, ports: Ports, family: Family, down: Iterable[tuple[str, int]]
) -> _Shares | None:
    """The servers that share new connections; None if the service has none of this family."""
    servers = [s for s in forward.to if family_of(s.address) == family]
    if not servers:
        return None
    up = servers
    if down:
        up = [s for s in servers if (s.address, checked_port(ports, s)) not in down]
    refused = 0
    if forward.on_down == "reset" and len(up) < len(servers):
        refused = sum(s.weight for s in servers) - sum(s.weight for s in up)
    return _Shares(tuple([s for s in up if s.weight]), refused)


# --- the table ----------------------------------------------------------------------------


class _Identity:
    """A cache key that compares by identity: comparing thousands of services takes long."""

    __slots__ = ("value",)

    def __init__(self, value: tuple[ForwardConfig, ...]) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value


def render(forwards: tuple[ForwardConfig, ...], uplinks: tuple[Uplink, ...], down: Down) -> str:
    """The text of the table; "" if there are no services."""
    own = tuple((u.name, tuple(a.address for a in u.addresses)) for u in uplinks)
    return _rendered(_Identity(forwards), own, down)


@functools.lru_cache(maxsize=4)
def _rendered(forwards: _Identity, own: tuple[tuple[str, tuple[str, ...]], ...], down: Down) -> str:
    text = _Text(frozenset(down))
    groups: dict[tuple[str, ...], list[tuple[int, ForwardConfig]]] = {}
    for number, forward in enumerate(forwards.value):
        groups.setdefault(tuple(sorted(forward.uplinks)), []).append((number, forward))
    for names, members in groups.items():
        addresses = {a for name, of_uplink in own if not names or name in names for a in of_uplink}
        for family in FAMILIES:
            of_family = sorted(a for a in addresses if family_of(a) == family)
            if of_family:
                text.add_group(family, of_family, members)
    body = list(text.lines())
    return table(FORWARD_TABLE, body) if body else ""


@dataclass(slots=True)
class _Text:
    """The table under construction: the parts that services share, and those of each group."""

    down: frozenset[tuple[str, int]]
    groups: int = 0
    refused: set[int] = field(default_factory=set)
    chains: dict[tuple[str, ...], str] = field(default_factory=dict)  # lines to name
    maps: list[str] = field(default_factory=list)
    dnat: list[str] = field(default_factory=list)  # lines of chain dnat_services
    reject: list[str] = field(default_factory=list)  # lines of chain reject_services

    def add_group(
        self, family: Family, own: Sequence[str], members: Iterable[tuple[int, ForwardConfig]]
    ) -> None:
        """Add services on the same addresses of one family."""
        self.groups += 1
        ip, suffix = IP[family], f"{family}_{self.groups}"
        single, pools, ranges, rejected = self._elements(family, members)
        server, verdict = f"ipv{family}_addr . inet_service", "verdict"
        dnat = [
            *self._lookup(f"single_{suffix}", single, server, f"{_PORTS} dnat {ip} to {_KEY} map"),
            *self._lookup(f"pools_{suffix}", pools, verdict, f"{_KEY} vmap"),
            *self._lookup_ranges(f"ranges_{suffix}", ranges),
        ]
        reject = [*self._lookup_ranges(f"rejected_{suffix}", rejected)]
        if dnat:
            self.maps += chain(f"dnat_{suffix}", dnat)
            self.dnat.append(f"{ip} daddr {values(own)} jump dnat_{suffix}")
        if reject:
            self.maps += chain(f"reject_{suffix}", reject)
            self.reject.append(f"{ip} daddr {values(own)} jump reject_{suffix}")

    def _elements(
        self, family: Family, members: Iterable[tuple[int, ForwardConfig]]
    ) -> tuple[dict[str, str], ...]:
        """The elements of the four maps: `single`, `pools`, `ranges` and `rejected`."""
        elements: tuple[dict[str, str], ...] = ({}, {}, {}, {})
        single, pools, ranges, rejected = elements
        for number, forward in members:
            for ports in forward.listen:
                if (shares := _shares(forward, ports, family, self.down)) is None:
                    continue
                one_port = ports.first == ports.last
                key = f"{ports.transport} . {ports.first}{'' if one_port else f'-{ports.last}'}"
                if shares.refused or not shares.servers:
                    rejected[key] = f"goto {self._refusal(number, shares)}"
                if one_port and len(shares.servers) == 1:
                    server = shares.servers[0]
                    single[key] = f"{server.address} . {server.port or ports.first}"
                elif shares.servers:
                    pool = self._pool(family, ports.transport, shares)
                    (pools if one_port else ranges)[key] = f"goto {pool}"
        return elements

    def _lookup(
        self, name: str, elements: dict[str, str], to: str, statement: str
    ) -> Iterator[str]:
        """Add a map, unless it is empty, and yield the line that looks it up."""
        if elements:
            self._add_map(name, f"{_KEY_TYPE} : {to}", elements)
            yield f"{statement} @{name}"

    def _lookup_ranges(self, name: str, elements: dict[str, str]) -> Iterator[str]:
        """Add a map of port ranges for each transport, and yield the lines that look them up.

        One map for both would need a concatenation with intervals: for `meta l4proto` in one, nft
        before 1.1 emits a byte order conversion that kernels since 6.12.117 refuse (EOPNOTSUPP).
        """
        for transport in ("tcp", "udp"):
            prefix = f"{transport} . "
            own = {k.removeprefix(prefix): v for k, v in elements.items() if k.startswith(prefix)}
            if own:
                self._add_map(
                    f"{name}_{transport}", "inet_service : verdict", own, "flags interval"
                )
                yield f"meta l4proto {transport} th dport vmap @{name}_{transport}"

    def _add_map(self, name: str, kind: str, elements: dict[str, str], *flags: str) -> None:
        listed = ("elements = {", *(f"\t{k} : {v}," for k, v in elements.items()), "}")
        self.maps += named_set(name, f"type {kind}", *flags, *listed, kind="map")

    def _chain(self, kind: str, *lines: str) -> str:
        """The name of a chain with these lines; equal chains are shared."""
        return self.chains.setdefault(lines, f"{kind}_{len(self.chains)}")

    def _pool(self, family: Family, transport: str, shares: _Shares) -> str:
        """A chain that picks one of the servers by weight."""
        targets = [(self._server(family, transport, s), s.weight) for s in shares.servers]
        return targets[0][0] if len(targets) == 1 else self._chain("pool", *_pick(targets))

    def _server(self, family: Family, transport: str, server: ForwardServer) -> str:
        """A chain that leads to one server."""
        if not server.port:  # keep the port of the packet
            return self._chain("server", f"dnat {IP[family]} to {server.address}")
        address = f"[{server.address}]" if family == 6 else server.address
        target = f"{address}:{server.port}"
        return self._chain("server", f"meta l4proto {transport} dnat {IP[family]} to {target}")

    def _refusal(self, number: int, shares: _Shares) -> str:
        """A chain that rejects all connections, or the share of the servers that are down."""
        self.refused.add(number)
        counter = f"counter name {refusals(number)}"
        lines = (f"meta l4proto tcp {counter} reject with tcp reset", f"{counter} reject")
        reject_all = self._chain("reject_all", *lines)
        if not shares.servers:
            return reject_all
        accepted = sum(server.weight for server in shares.servers)
        return self._chain("reject_some", *_pick([(reject_all, shares.refused), ("", accepted)]))

    def lines(self) -> Iterator[str]:
        if not self.dnat and not self.reject:
            return
        for number in sorted(self.refused):
            yield f'counter {refusals(number)} {{ comment "forward[{number}]" }}'
        for lines, name in self.chains.items():
            yield from chain(name, lines)
        yield from self.maps
        yield from _hooked("reject", "filter", 10, f"{_FIRST} {_PORTS}", self.reject)
        yield from _hooked("dnat", "nat", 5, _PORTS, self.dnat)


def _pick(targets: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Lines that go to one of several chains at random, by weight; "" continues after them. No
    vmap: naming anonymous maps takes the kernel time quadratic in their number per table."""
    remaining = sum(weight for _, weight in targets)
    for name, weight in targets:
        if name:
            match = f"numgen random mod {remaining} < {weight} " if weight < remaining else ""
            yield f"{match}goto {name}"
        remaining -= weight


def _hooked(name: str, kind: str, before: int, match: str, lines: Sequence[str]) -> Iterator[str]:
    """A chain for incoming and for the host's own packets, before DNAT by others."""
    if lines:
        yield from chain(f"{name}_services", lines)
        jump = [f"{match} jump {name}_services"]
        yield from chain(
            f"{name}_prerouting", jump, f"{kind} hook prerouting priority dstnat - {before}"
        )
        yield from chain(f"{name}_output", jump, f"{kind} hook output priority {-100 - before}")

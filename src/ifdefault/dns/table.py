"""The embedded server's zones, indexed for lookups.

Rules: a Table is immutable except for its turns; when a zone changes, it is replaced. Every
existing name has a node, including empty non-terminals (RFC 4592, 2.2.2). `build` fails only for an
invalid name, whatever records a zone has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from itertools import groupby
from typing import Self

from ifdefault.dns import svcb, wire
from ifdefault.dns.order import (
    BY_ARRIVAL,
    Rdatas,
    RecordOrder,
    Turn,
    combine,
    fixed,
    order,
    unique,
)
from ifdefault.model.dns import AddressRecord, Published, Zone, within

# Secondaries must see changes soon (refresh, retry), and negative answers must expire as soon as
# addresses do (minimum); the copy of a secondary without contact is useful for a week (expire). The
# NS records change only with the config.
APEX_TTL = 3600
REFRESH, RETRY, EXPIRE, MINIMUM = 300, 60, 604_800, 30
_WILDCARD = b"\1*"


class RecordSet:
    """The records of one type at one name. `all`: all data, in no particular order."""

    __slots__ = ("_cycles", "_make", "all", "kind", "ttl", "uplinks")

    def __init__(
        self,
        kind: int,
        ttl: int,
        all_rdatas: Rdatas,
        make: Callable[[str], RecordOrder] | None = None,
        uplinks: Sequence[str] = (),
    ) -> None:
        """`make` returns the order for an uplink; it differs only for those in `uplinks`."""
        self.kind, self.ttl, self.all, self.uplinks = kind, ttl, all_rdatas, uplinks
        self._make = make
        self._cycles: dict[str, tuple[Iterator[Turn], Callable[[Turn], Rdatas]]] = {}

    def order(self, uplink: str) -> RecordOrder:
        return self._make(uplink) if self._make else fixed(self.all)

    def turns(self, uplink: str) -> tuple[Iterator[Turn], Callable[[Turn], Rdatas]]:
        """The turns that all queries received by this uplink share, and the data for each."""
        key = uplink if uplink in self.uplinks else ""
        if key not in self._cycles:
            order = self.order(key)
            self._cycles[key] = order.cycle(), order.take
        return self._cycles[key]


@dataclass(frozen=True, slots=True)
class Apex:
    """The apex of a zone; `negative_soa` is the SOA of negative answers, whose TTL is the lesser of
    the SOA's TTL and MINIMUM (RFC 2308, 3)."""

    zone: str
    name: bytes
    serial: int
    soa: RecordSet
    negative_soa: RecordSet


@dataclass(frozen=True, slots=True)
class ZoneNode:
    """A name. `sets` is empty for an empty non-terminal."""

    name: bytes
    apex: Apex
    sets: dict[int, RecordSet] = field(default_factory=dict)


class Table:
    """All zones, by name in wire form."""

    __slots__ = ("_apexes", "nodes")

    def __init__(self, apexes: dict[str, Apex], nodes: dict[bytes, ZoneNode]) -> None:
        self._apexes, self.nodes = apexes, nodes

    @classmethod
    def build(cls, zones: Sequence[Zone]) -> Self:
        apexes: dict[str, Apex] = {}
        nodes: dict[bytes, ZoneNode] = {}
        for zone in sorted(zones, key=lambda zone: zone.zone.count(".")):  # parents first
            apex = apexes[zone.zone] = _apex(zone)
            servers = tuple(wire.encode_name(name) for name in zone.nameservers)
            apex_sets = {wire.SOA: apex.soa, wire.NS: RecordSet(wire.NS, APEX_TTL, servers)}
            nodes[apex.name] = ZoneNode(apex.name, apex, apex_sets.copy())
            for published in zone.names:
                if within(published.name, zone.zone):
                    node = _node(nodes, wire.encode_name(published.name), apex)
                    node.sets.update(
                        {s.kind: s for s in _sets(published) if s.kind not in apex_sets}
                    )
        _hint(nodes)
        return cls(apexes, nodes)

    @property
    def zones(self) -> tuple[str, ...]:
        return tuple(self._apexes)

    def serial(self, zone: str) -> int | None:
        apex = self._apexes.get(zone)
        return apex.serial if apex else None

    def find(self, name: bytes) -> tuple[Apex, ZoneNode | None] | None:
        """The zone of a name, and its node or the wildcard that matches it (RFC 4592, 3.3.1); None
        if it isn't in any zone."""
        if node := self.nodes.get(name):
            return node.apex, node
        at = 0
        while name[at]:
            at += 1 + name[at]
            if encloser := self.nodes.get(name[at:]):
                return encloser.apex, self.nodes.get(_WILDCARD + name[at:])
        return None


def _apex(zone: Zone) -> Apex:
    name = wire.encode_name(zone.zone)
    server = wire.encode_name(zone.nameservers[0]) if zone.nameservers else name
    times = (zone.serial, REFRESH, RETRY, EXPIRE, MINIMUM)
    contact = wire.encode_name(zone.contact)
    rdata = server + contact + b"".join(time.to_bytes(4, "big") for time in times)
    soa = RecordSet(wire.SOA, APEX_TTL, (rdata,))
    negative_soa = RecordSet(wire.SOA, min(APEX_TTL, MINIMUM), (rdata,))
    return Apex(zone.zone, name, zone.serial, soa, negative_soa)


def _node(nodes: dict[bytes, ZoneNode], name: bytes, apex: Apex) -> ZoneNode:
    """A name's node, which is created with all missing nodes above it."""
    node, at = nodes.setdefault(name, ZoneNode(name, apex)), 0
    while name[at:] != apex.name:
        at += 1 + name[at]
        nodes.setdefault(name[at:], ZoneNode(name[at:], apex))
    return node


def _sets(published: Published) -> Iterator[RecordSet]:
    """The sets at a name; of one type the last one counts."""
    by_kind = sorted(published.records, key=lambda record: record.type)
    for kind, records in groupby(by_kind, lambda record: record.type):
        rdatas = unique(record.rdata for record in records)
        if kind != wire.CNAME or (rdatas := _alias(rdatas)):
            yield RecordSet(kind, published.ttl, rdatas)
    for kind, family in ((wire.A, 4), (wire.AAAA, 6)):
        if addresses := [a for a in published.addresses if a.family == family]:
            yield _addresses(kind, published, addresses)


def _alias(rdatas: Rdatas) -> Rdatas:
    """The target of a CNAME, which must be the only one; () if it is malformed."""
    try:
        name, end = wire.read_name(rdatas[0], 0)
    except wire.WireError:
        return ()
    return (name,) if end == len(rdatas[0]) else ()


def _addresses(kind: int, published: Published, addresses: list[AddressRecord]) -> RecordSet:
    rdatas = tuple(ip_address(record.address).packed for record in addresses)
    make = partial(order, published.policy, addresses, rdatas)
    by_arrival = published.policy in BY_ARRIVAL
    uplinks = sorted({record.uplink for record in addresses}) if by_arrival else ()
    return RecordSet(kind, published.ttl, unique(rdatas), make, uplinks)


# --- hints ----------------------------------------------------------------------------------


def _hint(nodes: dict[bytes, ZoneNode]) -> None:
    """Add hints to HTTPS and SVCB records."""
    for node in nodes.values():
        for kind in (wire.SVCB, wire.HTTPS):
            if plain := node.sets.get(kind):
                node.sets[kind] = _hinted(nodes, node.name, plain)


def _hinted(nodes: dict[bytes, ZoneNode], owner: bytes, plain: RecordSet) -> RecordSet:
    """The set with hints, in the order of responses to queries for the addresses."""
    sources: list[RecordSet] = []  # two for each record
    for rdata in plain.all:
        node = nodes.get(svcb.target(owner, rdata))
        sets = node.sets if node else {}
        sources += [sets.get(kind, _EMPTY) for kind in (wire.A, wire.AAAA)]

    def merge(taken: list[Rdatas]) -> Rdatas:
        return tuple(map(svcb.hinted, plain.all, taken[::2], taken[1::2]))

    def make(uplink: str) -> RecordOrder:
        return combine([source.order(uplink) for source in sources], merge)

    uplinks = sorted({uplink for source in sources for uplink in source.uplinks})
    return RecordSet(
        plain.kind, plain.ttl, merge([source.all for source in sources]), make, uplinks
    )


_EMPTY = RecordSet(0, 0, ())

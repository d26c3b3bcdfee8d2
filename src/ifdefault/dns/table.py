"""All that the server has to say, prepared for quick answers.

Rules: a Table isn't changed but for the turns that are taken; when a zone changes, another takes
its place. Every name that exists has a node, also one that only leads to others (RFC 4592, 2.2.2).
Nothing that a zone holds makes `build` fail but a name that is none.
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
    fixed,
    order,
    together,
    unique,
)
from ifdefault.model.dns import AddressRecord, Published, Zone, within

# A change must be seen soon by who holds a copy (refresh, retry), and "no such address" be
# forgotten as soon as an address would be (minimum); a secondary that hears nothing for a week
# still tells more than none (expire). Names of servers change by hand alone.
APEX_TTL = 3600
REFRESH, RETRY, EXPIRE, MINIMUM = 300, 60, 604_800, 30
_WILD = b"\1*"


class Set:
    """The records of one type at one name. `all`: for those who want them all, in no order."""

    __slots__ = ("_begun", "_make", "all", "kind", "ttl", "uplinks")

    def __init__(
        self,
        kind: int,
        ttl: int,
        everything: Rdatas,
        make: Callable[[str], RecordOrder] | None = None,
        uplinks: Sequence[str] = (),
    ) -> None:
        """`make` tells the order for an uplink; only for those in `uplinks` it is another."""
        self.kind, self.ttl, self.all, self.uplinks = kind, ttl, everything, uplinks
        self._make = make
        self._begun: dict[str, tuple[Iterator[Turn], Callable[[Turn], Rdatas]]] = {}

    def order(self, uplink: str) -> RecordOrder:
        return self._make(uplink) if self._make else fixed(self.all)

    def turns(self, uplink: str) -> tuple[Iterator[Turn], Callable[[Turn], Rdatas]]:
        """The turns that all share who ask by this uplink, and what to say at each."""
        same = uplink if uplink in self.uplinks else ""
        if same not in self._begun:
            order = self.order(same)
            self._begun[same] = order.cycle(), order.take
        return self._begun[same]


@dataclass(frozen=True, slots=True)
class Apex:
    """What a zone says of itself; `absence` is the SOA as it says that there is nothing, which
    holds for the least of both times (RFC 2308, 3)."""

    zone: str
    name: bytes
    serial: int
    soa: Set
    absence: Set


@dataclass(frozen=True, slots=True)
class ZoneNode:
    """A name. `sets` is empty where there are only names below it."""

    name: bytes
    apex: Apex
    sets: dict[int, Set] = field(default_factory=dict)


class Table:
    __slots__ = ("_apexes", "nodes")

    def __init__(self, apexes: dict[str, Apex], nodes: dict[bytes, ZoneNode]) -> None:
        self._apexes, self.nodes = apexes, nodes

    @classmethod
    def build(cls, zones: Sequence[Zone]) -> Self:
        apexes: dict[str, Apex] = {}
        nodes: dict[bytes, ZoneNode] = {}
        for zone in sorted(zones, key=lambda zone: zone.zone.count(".")):  # a part after its whole
            apex = apexes[zone.zone] = _apex(zone)
            servers = tuple(wire.encode_name(name) for name in zone.nameservers)
            heads = {wire.SOA: apex.soa, wire.NS: Set(wire.NS, APEX_TTL, servers)}
            nodes[apex.name] = ZoneNode(apex.name, apex, heads.copy())
            for published in zone.names:
                if within(published.name, zone.zone):
                    node = _node(nodes, wire.encode_name(published.name), apex)
                    node.sets.update({s.kind: s for s in _sets(published) if s.kind not in heads})
        _hint(nodes)
        return cls(apexes, nodes)

    @property
    def zones(self) -> tuple[str, ...]:
        return tuple(self._apexes)

    def serial(self, zone: str) -> int | None:
        apex = self._apexes.get(zone)
        return apex.serial if apex else None

    def find(self, name: bytes) -> tuple[Apex, ZoneNode | None] | None:
        """The zone that a name is in, and its node, or the wildcard that stands for it (RFC 4592,
        3.3.1); None if it is in no zone of ours."""
        if node := self.nodes.get(name):
            return node.apex, node
        at = 0
        while name[at]:
            at += 1 + name[at]
            if encloser := self.nodes.get(name[at:]):
                return encloser.apex, self.nodes.get(_WILD + name[at:])
        return None


def _apex(zone: Zone) -> Apex:
    name = wire.encode_name(zone.zone)
    server = wire.encode_name(zone.nameservers[0]) if zone.nameservers else name
    times = (zone.serial, REFRESH, RETRY, EXPIRE, MINIMUM)
    contact = wire.encode_name(zone.contact)
    rdata = server + contact + b"".join(time.to_bytes(4, "big") for time in times)
    soa = Set(wire.SOA, APEX_TTL, (rdata,))
    absence = Set(wire.SOA, min(APEX_TTL, MINIMUM), (rdata,))
    return Apex(zone.zone, name, zone.serial, soa, absence)


def _node(nodes: dict[bytes, ZoneNode], name: bytes, apex: Apex) -> ZoneNode:
    """A name's node, made with all those above it that aren't there yet."""
    node, at = nodes.setdefault(name, ZoneNode(name, apex)), 0
    while name[at:] != apex.name:
        at += 1 + name[at]
        nodes.setdefault(name[at:], ZoneNode(name[at:], apex))
    return node


def _sets(published: Published) -> Iterator[Set]:
    """The sets at a name; of one type the last counts."""
    by_kind = sorted(published.records, key=lambda record: record.type)
    for kind, records in groupby(by_kind, lambda record: record.type):
        rdatas = unique(each.rdata for each in records)
        if kind != wire.CNAME or (rdatas := _alias(rdatas)):
            yield Set(kind, published.ttl, rdatas)
    for kind, family in ((wire.A, 4), (wire.AAAA, 6)):
        if handed := [each for each in published.addresses if each.family == family]:
            yield _addresses(kind, published, handed)


def _alias(rdatas: Rdatas) -> Rdatas:
    """The one name that a name may be an alias of; () if there is none to be read."""
    try:
        name, end = wire.read_name(rdatas[0], 0)
    except wire.BadWire:
        return ()
    return (name,) if end == len(rdatas[0]) else ()


def _addresses(kind: int, published: Published, handed: list[AddressRecord]) -> Set:
    rdatas = tuple(ip_address(each.address).packed for each in handed)
    make = partial(order, published.policy, handed, rdatas)
    by_arrival = published.policy in BY_ARRIVAL
    uplinks = sorted({each.uplink for each in handed}) if by_arrival else ()
    return Set(kind, published.ttl, unique(rdatas), make, uplinks)


# --- hints ----------------------------------------------------------------------------------


def _hint(nodes: dict[bytes, ZoneNode]) -> None:
    """Put addresses into the HTTPS and SVCB records that want them."""
    for node in nodes.values():
        for kind in (wire.SVCB, wire.HTTPS):
            if plain := node.sets.get(kind):
                node.sets[kind] = _hinted(nodes, node.name, plain)


def _hinted(nodes: dict[bytes, ZoneNode], owner: bytes, plain: Set) -> Set:
    """The set, its hints in the order that a query for the addresses would get."""
    sources: list[Set] = []  # two for each record
    for rdata in plain.all:
        node = nodes.get(svcb.target(owner, rdata))
        found = node.sets if node else {}
        sources += [found.get(kind, _NOTHING) for kind in (wire.A, wire.AAAA)]

    def say(taken: list[Rdatas]) -> Rdatas:
        return tuple(map(svcb.hinted, plain.all, taken[::2], taken[1::2]))

    def make(uplink: str) -> RecordOrder:
        return together([each.order(uplink) for each in sources], say)

    uplinks = sorted({uplink for each in sources for uplink in each.uplinks})
    return Set(plain.kind, plain.ttl, say([each.all for each in sources]), make, uplinks)


_NOTHING = Set(0, 0, ())

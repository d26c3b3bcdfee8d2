"""What is to be said to a query: which records, in which section.

Rules: it depends on the query and the table alone; what the turn changes is in the last set of the
answer. What another server may be asked for isn't added (minimal answers), but for the addresses of
name servers that were asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.dns import wire
from ifdefault.dns.query import ParsedQuery
from ifdefault.dns.table import APEX_TTL, Set, Table, ZoneNode

MOST_CNAMES = 8  # of a chain, in one answer; a resolver asks for the rest
_META = frozenset({wire.OPT, *range(128, 256)}) - {wire.ANY}  # types that no record can have
_MINIMAL = Set(wire.HINFO, APEX_TTL, (b"\7RFC8482\0",))  # RFC 8482, 4.2

Owned = tuple[bytes, Set]


@dataclass(frozen=True, slots=True)
class Sections:
    """Sets with their owners, by section."""

    rcode: int = wire.NOERROR
    authoritative: bool = False
    answer: tuple[Owned, ...] = ()
    authority: tuple[Owned, ...] = ()
    additional: tuple[Owned, ...] = ()


def reply(asked: ParsedQuery, table: Table, may_transfer: bool | None = None) -> Sections:
    """What there is to say to any query; `may_transfer` None: it came over UDP. To a transfer that
    is allowed it is the SOA, as if nothing had changed since."""
    if asked.opcode:
        return Sections(wire.NOTIMP)
    if asked.fault:
        return Sections(asked.fault)
    if asked.refusal:  # who signs to us has checked it before; we know no key
        return Sections(wire.NOTAUTH)
    if asked.edns and asked.edns.version:
        return Sections(wire.BADVERS)
    if not asked.question:  # with a cookie it asks for ours (RFC 7873, 5.4)
        return Sections(wire.NOERROR if asked.edns and asked.edns.cookie else wire.FORMERR)
    if asked.class_ != wire.IN:
        return Sections(wire.REFUSED)
    if asked.type in (wire.AXFR, wire.IXFR):
        return _transfer(asked, table, may_transfer)
    if asked.type in _META:  # as BIND says
        return Sections(wire.NOTIMP if asked.type in (wire.MAILA, wire.MAILB) else wire.FORMERR)
    return look_up(table, asked.name, asked.type)


def _transfer(asked: ParsedQuery, table: Table, may_transfer: bool | None) -> Sections:
    """Over UDP IXFR's client learns whether to come over TCP (RFC 1995, 2); AXFR isn't defined
    there (RFC 5936, 4.2)."""
    node = table.nodes.get(asked.name)
    lacking = asked.serial is None if asked.type == wire.IXFR else may_transfer is None
    if lacking:
        return Sections(wire.FORMERR)
    if node is None or node.name != node.apex.name:
        return Sections(wire.NOTAUTH)
    if may_transfer is False:
        return Sections(wire.REFUSED)
    return Sections(wire.NOERROR, True, ((node.name, node.apex.soa),))


def look_up(table: Table, name: bytes, kind: int) -> Sections:
    """The records of a type at a name, behind the aliases that lead there."""
    answer: list[Owned] = []
    while found := table.find(name):
        apex, node = found
        if node is None:
            rcode, nothing = wire.NXDOMAIN, ((apex.name, apex.absence),)
            return Sections(rcode, True, tuple(answer), nothing)
        alias = node.sets.get(wire.CNAME)
        if alias and kind not in (wire.CNAME, wire.ANY):
            answer.append((name, alias))
            name = alias.all[0]
            if len(answer) < MOST_CNAMES and all(name != owner for owner, _ in answer):
                continue
            break
        if it := _set(node, kind):
            answer.append((name, it))
            return Sections(wire.NOERROR, True, tuple(answer), (), _glue(table, it))
        return Sections(wire.NOERROR, True, tuple(answer), ((apex.name, apex.absence),))
    return Sections(wire.NOERROR, True, tuple(answer)) if answer else Sections(wire.REFUSED)


def _set(node: ZoneNode, kind: int) -> Set | None:
    if kind == wire.ANY and node.sets:
        return node.sets.get(wire.CNAME, _MINIMAL)  # RFC 8482 leaves aliases as they are
    return node.sets.get(kind)


def _glue(table: Table, it: Set) -> tuple[Owned, ...]:
    if it.kind != wire.NS:
        return ()
    nodes = [(name, node.sets) for name in it.all if (node := table.nodes.get(name))]
    kinds = (wire.A, wire.AAAA)
    return tuple((name, sets[kind]) for name, sets in nodes for kind in kinds if kind in sets)

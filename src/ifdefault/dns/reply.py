"""The sections of the response to a query.

Rules: they depend only on the query and the table; the turn only affects the last set of the
answer. Responses are minimal, except for the addresses of name servers in the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.dns import wire
from ifdefault.dns.query import ParsedQuery
from ifdefault.dns.table import APEX_TTL, RecordSet, Table, ZoneNode

CNAMES_MAX = 8  # of a chain in one response; a resolver queries the rest
_META = frozenset({wire.OPT, *range(128, 256)}) - {wire.ANY}  # types of queries only
_MINIMAL = RecordSet(wire.HINFO, APEX_TTL, (b"\7RFC8482\0",))  # RFC 8482, 4.2

Owned = tuple[bytes, RecordSet]


@dataclass(frozen=True, slots=True)
class Sections:
    """The sets with their owners, by section."""

    rcode: int = wire.NOERROR
    authoritative: bool = False
    answer: tuple[Owned, ...] = ()
    authority: tuple[Owned, ...] = ()
    additional: tuple[Owned, ...] = ()


def reply(query: ParsedQuery, table: Table, may_transfer: bool | None = None) -> Sections:
    """The sections for any query. `may_transfer` None: received over UDP. For a permitted transfer
    they have the SOA only, as if the client's copy were current."""
    if query.opcode:
        return Sections(wire.NOTIMP)
    if query.fault:
        return Sections(query.fault)
    if query.refusal:  # valid signatures were removed before (dns.secondaries)
        return Sections(wire.NOTAUTH)
    if query.edns and query.edns.version:
        return Sections(wire.BADVERS)
    if not query.question:  # with a cookie, it requests a server cookie (RFC 7873, 5.4)
        return Sections(wire.NOERROR if query.edns and query.edns.cookie else wire.FORMERR)
    if query.class_ != wire.IN:
        return Sections(wire.REFUSED)
    if query.type in (wire.AXFR, wire.IXFR):
        return _transfer(query, table, may_transfer)
    if query.type in _META:  # like BIND
        return Sections(wire.NOTIMP if query.type in (wire.MAILA, wire.MAILB) else wire.FORMERR)
    return look_up(table, query.name, query.type)


def _transfer(query: ParsedQuery, table: Table, may_transfer: bool | None) -> Sections:
    """Over UDP, IXFR tells the client whether to use TCP (RFC 1995, 2); AXFR isn't defined there
    (RFC 5936, 4.2)."""
    node = table.nodes.get(query.name)
    is_incomplete = query.serial is None if query.type == wire.IXFR else may_transfer is None
    if is_incomplete:
        return Sections(wire.FORMERR)
    if node is None or node.name != node.apex.name:
        return Sections(wire.NOTAUTH)
    if may_transfer is False:
        return Sections(wire.REFUSED)
    return Sections(wire.NOERROR, True, ((node.name, node.apex.soa),))


def look_up(table: Table, name: bytes, kind: int) -> Sections:
    """The records of a type at a name, preceded by the CNAMEs that lead there."""
    answer: list[Owned] = []
    while found := table.find(name):
        apex, node = found
        if node is None:
            rcode, authority = wire.NXDOMAIN, ((apex.name, apex.negative_soa),)
            return Sections(rcode, True, tuple(answer), authority)
        alias = node.sets.get(wire.CNAME)
        if alias and kind not in (wire.CNAME, wire.ANY):
            answer.append((name, alias))
            name = alias.all[0]
            if len(answer) < CNAMES_MAX and all(name != owner for owner, _ in answer):
                continue
            break
        if records := _set(node, kind):
            answer.append((name, records))
            return Sections(wire.NOERROR, True, tuple(answer), (), _glue(table, records))
        return Sections(wire.NOERROR, True, tuple(answer), ((apex.name, apex.negative_soa),))
    return Sections(wire.NOERROR, True, tuple(answer)) if answer else Sections(wire.REFUSED)


def _set(node: ZoneNode, kind: int) -> RecordSet | None:
    if kind == wire.ANY and node.sets:
        return node.sets.get(wire.CNAME, _MINIMAL)  # RFC 8482 returns CNAMEs as usual
    return node.sets.get(kind)


def _glue(table: Table, servers: RecordSet) -> tuple[Owned, ...]:
    if servers.kind != wire.NS:
        return ()
    nodes = [(name, node.sets) for name in servers.all if (node := table.nodes.get(name))]
    kinds = (wire.A, wire.AAAA)
    return tuple((name, sets[kind]) for name, sets in nodes for kind in kinds if kind in sets)

"""A zone as its secondaries get it (RFC 5936).

Rules: of each name all addresses, whatever its policy: a secondary knows no policies. Messages
leave room for a signature.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.dns import wire
from ifdefault.dns.table import Table

MOST_BYTES = 16_384  # of records in one message; larger ones only cost memory


def axfr(table: Table, zone: str) -> tuple[bytes, ...]:
    """The zone's records, the SOA first and last; () if there is no such zone."""
    if table.serial(zone) is None:
        return ()
    apex = table.nodes[wire.encode_name(zone)].apex
    soa = wire.record(apex.name, wire.SOA, apex.soa.ttl, apex.soa.all[0], {})
    nodes = [node for _, node in sorted(table.nodes.items()) if node.apex is apex]
    middle = [
        wire.record(node.name, one.kind, one.ttl, rdata, {})
        for node in nodes
        for kind, one in sorted(node.sets.items())
        if kind != wire.SOA
        for rdata in one.all
    ]
    return (soa, *middle, soa)


def is_newer(serial: int, other: int) -> bool:
    """Whether a zone has moved on from another serial (RFC 1982)."""
    return 0 < (serial - other) & 0xFFFFFFFF < 1 << 31


def portions(records: tuple[bytes, ...]) -> Iterator[list[bytes]]:
    """Records in as many portions as there need to be messages."""
    portion: list[bytes] = []
    size = 0
    for record in records:
        if portion and size + len(record) > MOST_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(record)
        size += len(record)
    yield portion

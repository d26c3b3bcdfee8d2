"""Zone transfer (RFC 5936).

Rules: each name has all addresses, whatever its policy, which secondaries don't implement. Messages
leave space for a signature.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.dns import wire
from ifdefault.dns.table import Table

MESSAGE_BYTES_MAX = 16_384  # of records in one message


def axfr(table: Table, zone: str) -> tuple[bytes, ...]:
    """The zone's records, the SOA first and last; () if there is no such zone."""
    if table.serial(zone) is None:
        return ()
    apex = table.nodes[wire.encode_name(zone)].apex
    soa = wire.record(apex.name, wire.SOA, apex.soa.ttl, apex.soa.all[0], {})
    nodes = [node for _, node in sorted(table.nodes.items()) if node.apex is apex]
    middle = [
        wire.record(node.name, rrset.kind, rrset.ttl, rdata, {})
        for node in nodes
        for kind, rrset in sorted(node.sets.items())
        if kind != wire.SOA
        for rdata in rrset.all
    ]
    return (soa, *middle, soa)


def is_newer(serial: int, other: int) -> bool:
    """Whether a serial is greater than another (RFC 1982)."""
    return 0 < (serial - other) & 0xFFFFFFFF < 1 << 31


def portions(records: tuple[bytes, ...]) -> Iterator[list[bytes]]:
    """Split records into one portion per message."""
    portion: list[bytes] = []
    size = 0
    for record in records:
        if portion and size + len(record) > MESSAGE_BYTES_MAX:
            yield portion
            portion, size = [], 0
        portion.append(record)
        size += len(record)
    yield portion

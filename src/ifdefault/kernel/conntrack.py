"""Find and delete connection tracking entries (linux/netfilter/nfnetlink_conntrack.h).

Rules: only the requested entries are deleted, by their tuple and id, or by the kernel's filter
where that is reliable.
"""

from __future__ import annotations

import bisect
import errno
import itertools
import re
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from ifdefault.kernel import sysctl
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attribute, attribute_u32, attributes, nested
from ifdefault.kernel.rtnetlink import AF, packed
from ifdefault.kernel.uapi import netfilter as nf
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER, NLA_F_NESTED
from ifdefault.model.address import BITS
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.kernel import Redirect

_GET = nf.NFNL_SUBSYS_CTNETLINK << 8 | nf.IPCTNL_MSG_CT_GET
_DELETE = nf.NFNL_SUBSYS_CTNETLINK << 8 | nf.IPCTNL_MSG_CT_DELETE
_SRC = {4: nf.CTA_IP_V4_SRC, 6: nf.CTA_IP_V6_SRC}
_DST = {4: nf.CTA_IP_V4_DST, 6: nf.CTA_IP_V6_DST}
_ATTRIBUTE = struct.Struct("=HH")  # length, kind
_ZONE_KIND = attribute(nf.CTA_ZONE, b"")[2:]
_Ends = tuple[bytes, bytes]  # source and destination; b"": any
_ANY: _Ends = (b"", b"")


def delete_redirected(
    redirects: tuple[Redirect, ...],
    ports: tuple[tuple[Family, int], ...],
    addresses: tuple[str, ...],
    mask: int,
) -> int:
    """Delete UDP entries to one of these ports and addresses whose replies have another source
    than `redirects` gives for the client. Return how many.

    Flows that others redirect, such as to a container, have no mark of ours and are kept.
    """
    own = {packed(address) for address in addresses}
    stale: list[bytes] = []
    with Netlink(NETLINK_NETFILTER) as netlink:
        for family in {r.family for r in redirects}:
            ranges = sorted(
                (packed(r.first), packed(r.last), packed(r.address))
                for r in redirects
                if r.family == family
            )
            header = _header(family)
            for message in netlink.dump(_GET, header + _UDP_ONLY):
                entry = attributes(message, 4)
                flow = decode_flow(family, entry)
                if (
                    (family, flow.port) in ports
                    and flow.reply_source != _reply_source(ranges, flow)
                    and flow.destination in own
                    and (flow.reply_source == flow.destination or flow.mark & mask)
                ):
                    original = nested(nf.CTA_TUPLE_ORIG, entry[nf.CTA_TUPLE_ORIG])
                    stale.append(header + original + attribute(nf.CTA_ID, entry[nf.CTA_ID]))
        netlink.send_many(_DELETE, stale)  # refused for entries that have expired, which is fine
    return len(stale)


# the kernel filters by protocol, as there may be many other entries (CTA_FILTER, Linux 5.8)
_PROTO_ONLY = attribute_u32(nf.CTA_FILTER_ORIG_FLAGS, nf.CTA_FILTER_F_CTA_PROTO_NUM)
_UDP = attribute(nf.CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
_UDP_ONLY = nested(nf.CTA_FILTER, _PROTO_ONLY) + nested(
    nf.CTA_TUPLE_ORIG, nested(nf.CTA_TUPLE_PROTO, _UDP)
)


_COUNT = "net/netfilter/nf_conntrack_count"
_FLUSHED_MAX = 8  # addresses for each of which the kernel walks its table; for more we do, once
_FEW = 8
_PACKETS_AT_ONCE = 16  # of about 130 entries each


def delete_outgoing(
    addresses: Sequence[str],
    marks: Sequence[int] = (),
    mask: int = 0,
    others: Sequence[str] = (),
) -> int:
    """Delete the entries whose replies go to one of these addresses (the host's own outgoing and
    masqueraded flows), or whose mark under `mask` is one of `marks`. Return by how many entries the
    table shrank meanwhile.

    Inbound flows to the addresses are kept: their replies go elsewhere. Flows of the host to itself
    are deleted; unless redirected, they are tracked again with their next packet. The first of
    `others` in each family is the address that probably has the most flows of those that are kept.
    """
    before = count()
    if not before:  # avoid loading the module if nothing is tracked
        return 0
    with Netlink(NETLINK_NETFILTER) as netlink:
        for mark in marks:
            # without a mask all entries would be deleted; a kernel without marks refuses this
            netlink.change(_DELETE, bytes(4) + _mark_attributes(mark, mask))
        for family in FAMILIES:
            size = BITS[family] // 8
            deleted, kept = (
                [raw for raw in map(packed, texts) if len(raw) == size]
                for texts in (addresses, others)
            )
            comparison = _comparison(family, deleted[:_FLUSHED_MAX])
            if comparison == "correct" and len(deleted) <= _FLUSHED_MAX:
                deleted = [address for address in deleted if not _flush(netlink, family, address)]
            if deleted:
                excluded = kept if comparison == "inverted" else []
                _delete_listed(netlink, family, deleted, excluded)
    return max(0, before - count())


@decodes
def _comparison(
    family: Family, addresses: list[bytes]
) -> Literal["correct", "inverted", "unknown"]:
    """How the kernel compares addresses with a filter. For IPv6, Linux (at least 6.18) matches all
    entries except the requested ones. A listing shows this without side effects."""
    if family == 4:
        return "correct"
    for address in addresses:
        with Netlink(NETLINK_NETFILTER) as listing:
            message = next(listing.stream(_GET, _filter(family, reply=(b"", address))), b"")
        if message:  # otherwise none matches, or all do
            reply = attributes(attributes(message, 4)[nf.CTA_TUPLE_REPLY], 0)
            listed = attributes(reply[nf.CTA_TUPLE_IP], 0)[_DST[family]]
            return "correct" if listed == address else "inverted"
    return "unknown"


def _flush(netlink: Netlink, family: Family, address: bytes) -> bool:
    """Delete by the kernel's filter. Return False if the kernel doesn't support it.

    Linux 6.11 does (CTA_FILTER in IPCTNL_MSG_CT_DELETE). Older kernels ignore the filter, look for
    a single entry with the tuple, and refuse a tuple without a protocol.
    """
    try:
        netlink.change(_DELETE, _filter(family, reply=(b"", address)))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _filter(family: Family, original: _Ends = _ANY, reply: _Ends = _ANY) -> bytes:
    """The body of a request for entries with these (source, destination) pairs."""
    flags = tuples = b""
    for direction, flags_kind, ends in (
        (nf.CTA_TUPLE_ORIG, nf.CTA_FILTER_ORIG_FLAGS, original),
        (nf.CTA_TUPLE_REPLY, nf.CTA_FILTER_REPLY_FLAGS, reply),
    ):
        kinds = (_SRC[family], _DST[family])
        given = [attribute(kind, end) for kind, end in zip(kinds, ends, strict=True) if end]
        if given:
            compared = nf.CTA_FILTER_F_CTA_IP_SRC if ends[0] else 0
            compared |= nf.CTA_FILTER_F_CTA_IP_DST if ends[1] else 0
            flags += attribute_u32(flags_kind, compared)
            tuples += nested(direction, nested(nf.CTA_TUPLE_IP, *given))
    return _header(family) + nested(nf.CTA_FILTER, flags) + tuples


def _delete_listed(
    netlink: Netlink, family: Family, addresses: list[bytes], kept: list[bytes]
) -> None:
    """List the entries of a family, and delete those whose replies go to one of the addresses, each
    by its reply tuple.

    The kernel lists on one core; entries are searched and deleted on another. With the inverted
    comparison (`kept` isn't empty), the filter leaves out inbound flows to the first address, and
    both directions of the first address of `kept`.
    """
    header = request = _header(family)
    if kept:
        request = _filter(family, (b"", kept[0]), (addresses[0], kept[0]))
    find = _reply_tuple_finder(family, addresses)

    def delete(packets: list[bytes]) -> None:
        netlink.send_many(_DELETE, [header + found for packet in packets for found in find(packet)])

    with Netlink(NETLINK_NETFILTER) as listing, ThreadPoolExecutor(1) as executor:
        packets = listing.packets(_GET, request)
        deletions = []
        while batch := list(itertools.islice(packets, _PACKETS_AT_ONCE)):
            deletions.append(executor.submit(delete, batch))
        for deletion in deletions:
            deletion.result()


def _reply_tuple_finder(
    family: Family, addresses: list[bytes]
) -> Callable[[bytes], Iterator[bytes]]:
    """A function that finds, in a packet of entries, the reply tuples with one of the addresses as
    destination, each with its zone unless that is the default one.

    It searches for the bytes of the tuple's addresses: parsing all attributes of all messages takes
    longer than the kernel takes to list them.
    """
    size = BITS[family] // 8
    address = bytes(size)
    source, destination = attribute(_SRC[family], address), attribute(_DST[family], address)
    begin = nested(nf.CTA_TUPLE_IP, source, destination)[:8]
    wanted, any_address = frozenset(addresses), b".{%d}" % size
    # of few addresses, the expression finds the entries by itself, at a third of the time
    ends = b"|".join(map(re.escape, addresses)) if len(addresses) <= _FEW else any_address
    pattern = re.compile(
        re.escape(begin) + any_address + re.escape(destination[:4]) + b"(" + ends + b")",
        re.DOTALL,
    )

    def find(packet: bytes) -> Iterator[bytes]:
        for match in pattern.finditer(packet, _ATTRIBUTE.size):
            if match[1] not in wanted:
                continue
            start = match.start() - _ATTRIBUTE.size
            length, kind = _ATTRIBUTE.unpack_from(packet, start)
            if kind == nf.CTA_TUPLE_REPLY | NLA_F_NESTED:
                end = start + length
                zoned = packet[end + 2 : end + 4] == _ZONE_KIND
                yield packet[start : end + 8 if zoned else end]

    return find


def _header(family: Family) -> bytes:
    """struct nfgenmsg"""
    return struct.pack("=BBH", AF[family], nf.NFNETLINK_V0, 0)


def count() -> int:
    return int(sysctl.read(_COUNT) or 0)


def udp(netlink: Netlink, family: Family) -> Iterator[bytes]:
    """The entries of UDP; of all protocols before Linux 5.8."""
    return netlink.stream(_GET, _header(family) + _UDP_ONLY)


def marked(netlink: Netlink, mark: int, mask: int) -> Iterator[bytes]:
    """The entries of both families that have a mark under a mask."""
    return netlink.stream(_GET, bytes(4) + _mark_attributes(mark, mask))


def answered_to(netlink: Netlink, address: str) -> Iterator[bytes]:
    """The entries whose replies go to an address, and others (all of IPv6, where the kernel's
    filter can't be relied on: see `_comparison`)."""
    raw = packed(address)
    family: Family = 4 if len(raw) == 4 else 6
    request = _filter(family, reply=(b"", raw)) if family == 4 else _header(family)
    return (entry for entry in netlink.stream(_GET, request) if raw in entry)


def delete(netlink: Netlink, entries: Sequence[bytes]) -> int:
    """Delete these entries, those that have expired excepted; return how many."""
    return netlink.change_many(_DELETE, [_key(entry) for entry in entries])


@decodes
def _key(entry: bytes) -> bytes:
    """What identifies an entry: its original tuple, zone and id."""
    found = attributes(entry, 4)
    members = [nested(nf.CTA_TUPLE_ORIG, found[nf.CTA_TUPLE_ORIG])]
    members += [attribute(k, found[k]) for k in (nf.CTA_ZONE, nf.CTA_ID) if k in found]
    return entry[:4] + b"".join(members)


def _mark_attributes(mark: int, mask: int) -> bytes:
    pair = (nf.CTA_MARK, mark), (nf.CTA_MARK_MASK, mask)
    return b"".join(attribute(kind, value.to_bytes(4, "big")) for kind, value in pair)


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """One direction of a flow (struct nf_conntrack_tuple). Addresses are packed; `ports`: of source
    and destination, 0 if it has none."""

    protocol: int
    source: bytes
    destination: bytes
    ports: tuple[int, int]


def decode_tuples(entry: bytes) -> tuple[dict[int, bytes], FlowTuple, FlowTuple]:
    """The attributes of an entry, and of them the original and the reply tuple."""
    found, family = attributes(entry, 4), FAMILIES[entry[0] != socket.AF_INET]
    original, reply = (
        _decode_tuple(family, found[kind]) for kind in (nf.CTA_TUPLE_ORIG, nf.CTA_TUPLE_REPLY)
    )
    return found, original, reply


def _decode_tuple(family: Family, raw: bytes) -> FlowTuple:
    parts = attributes(raw, 0)
    ip, protocol = (attributes(parts[k], 0) for k in (nf.CTA_TUPLE_IP, nf.CTA_TUPLE_PROTO))
    kinds = nf.CTA_PROTO_SRC_PORT, nf.CTA_PROTO_DST_PORT
    source, destination = (int.from_bytes(protocol.get(kind, b"")) for kind in kinds)
    number = protocol[nf.CTA_PROTO_NUM][0]
    return FlowTuple(number, ip[_SRC[family]], ip[_DST[family]], (source, destination))


@dataclass(frozen=True, slots=True)
class _Flow:
    client: bytes
    destination: bytes
    port: int
    reply_source: bytes
    mark: int


@decodes
def decode_flow(family: Family, entry: dict[int, bytes]) -> _Flow:
    original = attributes(entry[nf.CTA_TUPLE_ORIG], 0)
    reply = attributes(entry[nf.CTA_TUPLE_REPLY], 0)
    protocol = attributes(original[nf.CTA_TUPLE_PROTO], 0)
    ip = attributes(original[nf.CTA_TUPLE_IP], 0)
    return _Flow(
        client=ip[_SRC[family]],
        destination=ip[_DST[family]],
        port=int.from_bytes(protocol[nf.CTA_PROTO_DST_PORT], "big"),
        reply_source=attributes(reply[nf.CTA_TUPLE_IP], 0)[_SRC[family]],
        mark=int.from_bytes(entry.get(nf.CTA_MARK, b""), "big"),
    )


def _reply_source(ranges: list[tuple[bytes, bytes, bytes]], flow: _Flow) -> bytes:
    """The source of replies to the client by the (first, last, source) ranges; the flow's current
    one if no range contains the client."""
    index = bisect.bisect_right(ranges, flow.client, key=lambda r: r[0]) - 1
    if index < 0 or flow.client > ranges[index][1]:
        return flow.reply_source
    return ranges[index][2]

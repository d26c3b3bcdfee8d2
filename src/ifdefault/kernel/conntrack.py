"""Connection tracking entries (linux/netfilter/nfnetlink_conntrack.h): find and delete.

Rules: deletes exactly the entries that it was asked for, by their own tuple and id, or by the
kernel's own filter where that can be relied upon.
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
from ifdefault.kernel.netlink import (
    NETLINK_NETFILTER,
    Netlink,
    attribute,
    attribute_u32,
    attributes,
)
from ifdefault.kernel.rtnetlink import AF, BITS, packed
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.kernel import Redirect

_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY, _MARK, _ID, _ZONE, _MARK_MASK, _FILTER = 1, 2, 8, 12, 18, 21, 25
_IP, _PROTO, _PROTO_NUMBER, _PROTO_DST_PORT = 1, 2, 1, 3
_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_DST = {4: 2, 6: 4}
_NESTED = 0x8000
_ATTRIBUTE = struct.Struct("=HH")  # length, kind
_ZONE_KIND = attribute(_ZONE, b"")[2:]
_Ends = tuple[bytes, bytes]  # source and destination; b"": any
_ANY: _Ends = (b"", b"")


def forget_redirected(
    redirects: tuple[Redirect, ...],
    ports: tuple[tuple[Family, int], ...],
    addresses: tuple[str, ...],
    mask: int,
) -> int:
    """Delete the UDP entries from outside to one of these ports and addresses that are answered
    from another address than `redirects` now gives their client; how many they were.

    What others redirect elsewhere, to a container, bears no mark of ours and stays theirs.
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
            for message in netlink.dump(_GET, header + _UDP_ALONE):
                found = attributes(message, 4)
                flow = _read(family, found)
                if (
                    (family, flow.port) in ports
                    and flow.answering != _answer(ranges, flow)
                    and flow.asked in own
                    and (flow.answering == flow.asked or flow.mark & mask)
                ):
                    original = attribute(_ORIGINAL | _NESTED, found[_ORIGINAL])
                    stale.append(header + original + attribute(_ID, found[_ID]))
        netlink.cast(_DELETE, stale)  # one that ended by itself is refused, which is well
    return len(stale)


# the kernel picks the UDP entries: there may be very many others (CTA_FILTER, Linux 5.8)
_UDP_ALONE = attribute(_FILTER | _NESTED, attribute_u32(1, 1 << 3)) + attribute(
    _ORIGINAL | _NESTED,
    attribute(_PROTO | _NESTED, attribute(_PROTO_NUMBER, bytes([socket.IPPROTO_UDP]))),
)


_COUNT = "net/netfilter/nf_conntrack_count"
_PACKETS_AT_ONCE = 16  # of some 130 entries each


def forget_outgoing(
    addresses: Sequence[str],
    marks: Sequence[int] = (),
    mask: int = 0,
    others: Sequence[str] = (),
) -> int:
    """Delete the entries whose answers come to one of these addresses (the host's own outgoing
    flows, and those that it masquerades), or whose mark under `mask` is one of `marks`. How many
    went; others that ended or began meanwhile count in.

    Flows to the addresses stay: their answers go elsewhere. Flows of the host to itself don't;
    unless redirected they are tracked anew with their next packet. The first of `others` in each
    family is the address that probably has the most flows of those that stay.
    """
    before = _count()
    if not before:  # so that this doesn't load a module where nothing is tracked
        return 0
    with Netlink(NETLINK_NETFILTER) as netlink:
        for mark in marks:
            pair = (_MARK, mark), (_MARK_MASK, mask)
            # a mask must be there, or all goes; a kernel that is built without marks refuses it
            body = b"".join(attribute(kind, value.to_bytes(4, "big")) for kind, value in pair)
            netlink.change(_DELETE, bytes(4) + body)
        for family in FAMILIES:
            size = BITS[family] // 8
            doomed, staying = (
                [one for one in map(packed, some) if len(one) == size]
                for some in (addresses, others)
            )
            compares = _compares(family, doomed)
            if compares == "rightly":
                doomed = [address for address in doomed if not _flush(netlink, family, address)]
            if doomed:
                _delete_listed(netlink, family, doomed, staying if compares == "wrongly" else [])
    return max(0, before - _count())


def _compares(family: Family, addresses: list[bytes]) -> Literal["rightly", "wrongly", "unknown"]:
    """How the kernel compares addresses with a filter's. With IPv6's, Linux (6.18 at least) takes
    all but what we want, which what it lists tells without harm."""
    if family == 4:
        return "rightly"
    for address in addresses:
        with Netlink(NETLINK_NETFILTER) as listing:
            message = next(listing.stream(_GET, _filter(family, reply=(b"", address))), b"")
        if message:  # else there is none of it, or are no others
            reply = attributes(attributes(message, 4)[_REPLY], 0)
            found = attributes(reply[_IP], 0)[_DST[family]]
            return "rightly" if found == address else "wrongly"
    return "unknown"


def _flush(netlink: Netlink, family: Family, address: bytes) -> bool:
    """Delete by the kernel's filter; False where it has none for this.

    Linux 6.11 has (CTA_FILTER in IPCTNL_MSG_CT_DELETE). Older ones ignore the filter, look for the
    one entry of the tuple, and refuse one without a protocol.
    """
    try:
        netlink.change(_DELETE, _filter(family, reply=(b"", address)))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _filter(family: Family, original: _Ends = _ANY, reply: _Ends = _ANY) -> bytes:
    """A request for the entries with these ends, as far as they are given."""
    flags = tuples = b""
    for number, (place, ends) in enumerate(((_ORIGINAL, original), (_REPLY, reply)), 1):
        kinds = (_SOURCE[family], _DST[family])
        given = [attribute(kind, end) for kind, end in zip(kinds, ends, strict=True) if end]
        if given:
            flags += attribute_u32(number, bool(ends[0]) | bool(ends[1]) << 1)
            ip = attribute(_IP | _NESTED, b"".join(given))
            tuples += attribute(place | _NESTED, ip)
    return _header(family) + attribute(_FILTER | _NESTED, flags) + tuples


def _delete_listed(
    netlink: Netlink, family: Family, addresses: list[bytes], staying: list[bytes]
) -> None:
    """List the entries of a family, and delete those that are answered to one of the addresses,
    each by its reply's tuple, which holds the address.

    The kernel lists on one core; what it listed is looked through, and deleted, on another. One
    that compares wrongly is asked to leave out what comes from outside to the address, and both
    ways of the first that is `staying`.
    """
    header = request = _header(family)
    if staying:
        request = _filter(family, (b"", staying[0]), (addresses[0], staying[0]))
    answered = _answered_to(family, addresses)

    def delete(packets: list[bytes]) -> None:
        netlink.cast(_DELETE, [header + one for packet in packets for one in answered(packet)])

    with Netlink(NETLINK_NETFILTER) as listing, ThreadPoolExecutor(1) as beside:
        packets = listing.packets(_GET, request)
        deleted = []
        while some := list(itertools.islice(packets, _PACKETS_AT_ONCE)):
            deleted.append(beside.submit(delete, some))
        for one in deleted:
            one.result()


def _answered_to(family: Family, addresses: list[bytes]) -> Callable[[bytes], Iterator[bytes]]:
    """Finds, in a packet of entries, the replies' tuples that go to one of the addresses, each
    with its zone if it isn't in the usual one.

    It looks for the bytes of the tuple's addresses: walking through all attributes of all
    messages takes longer than the kernel takes to make them.
    """
    size = BITS[family] // 8
    address = bytes(size)
    source, destination = attribute(_SOURCE[family], address), attribute(_DST[family], address)
    begin = attribute(_IP | _NESTED, source + destination)[:8]
    ends = b"|".join(re.escape(attribute(_DST[family], one)) for one in addresses)
    pattern = re.compile(re.escape(begin) + b".{%d}(?:%s)" % (size, ends), re.DOTALL)

    def find(packet: bytes) -> Iterator[bytes]:
        for match in pattern.finditer(packet):
            start = match.start() - _ATTRIBUTE.size
            length, kind = _ATTRIBUTE.unpack_from(packet, start)
            if kind == _REPLY | _NESTED:
                end = start + length
                zoned = packet[end + 2 : end + 4] == _ZONE_KIND
                yield packet[start : end + 8 if zoned else end]

    return find


def _header(family: Family) -> bytes:
    """struct nfgenmsg"""
    return struct.pack("=BBH", AF[family], 0, 0)


def _count() -> int:
    return int(sysctl.read(_COUNT) or 0)


@dataclass(frozen=True, slots=True)
class _Flow:
    client: bytes
    asked: bytes
    port: int
    answering: bytes
    mark: int


def _read(family: Family, found: dict[int, bytes]) -> _Flow:
    original, reply = attributes(found[_ORIGINAL], 0), attributes(found[_REPLY], 0)
    protocol, ip = attributes(original[_PROTO], 0), attributes(original[_IP], 0)
    return _Flow(
        client=ip[_SOURCE[family]],
        asked=ip[_DST[family]],
        port=int.from_bytes(protocol[_PROTO_DST_PORT], "big"),
        answering=attributes(reply[_IP], 0)[_SOURCE[family]],
        mark=int.from_bytes(found.get(_MARK, b""), "big"),
    )


def _answer(ranges: list[tuple[bytes, bytes, bytes]], flow: _Flow) -> bytes:
    """The address that the client is answered from now; where none is known, as it was."""
    place = bisect.bisect_right(ranges, flow.client, key=lambda r: r[0]) - 1
    if place < 0 or flow.client > ranges[place][1]:
        return flow.answering
    return ranges[place][2]

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
                    original = nested(nf.CTA_TUPLE_ORIG, found[nf.CTA_TUPLE_ORIG])
                    stale.append(header + original + attribute(nf.CTA_ID, found[nf.CTA_ID]))
        netlink.cast(_DELETE, stale)  # one that ended by itself is refused, which is well
    return len(stale)


# the kernel picks the UDP entries: there may be very many others (CTA_FILTER, Linux 5.8)
_PROTO_ALONE = attribute_u32(nf.CTA_FILTER_ORIG_FLAGS, nf.CTA_FILTER_F_CTA_PROTO_NUM)
_UDP = attribute(nf.CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
_UDP_ALONE = nested(nf.CTA_FILTER, _PROTO_ALONE) + nested(
    nf.CTA_TUPLE_ORIG, nested(nf.CTA_TUPLE_PROTO, _UDP)
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
            pair = (nf.CTA_MARK, mark), (nf.CTA_MARK_MASK, mask)
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
            reply = attributes(attributes(message, 4)[nf.CTA_TUPLE_REPLY], 0)
            found = attributes(reply[nf.CTA_TUPLE_IP], 0)[_DST[family]]
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
    for place, compared, ends in (
        (nf.CTA_TUPLE_ORIG, nf.CTA_FILTER_ORIG_FLAGS, original),
        (nf.CTA_TUPLE_REPLY, nf.CTA_FILTER_REPLY_FLAGS, reply),
    ):
        kinds = (_SRC[family], _DST[family])
        given = [attribute(kind, end) for kind, end in zip(kinds, ends, strict=True) if end]
        if given:
            wanted = nf.CTA_FILTER_F_CTA_IP_SRC if ends[0] else 0
            wanted |= nf.CTA_FILTER_F_CTA_IP_DST if ends[1] else 0
            flags += attribute_u32(compared, wanted)
            tuples += nested(place, nested(nf.CTA_TUPLE_IP, *given))
    return _header(family) + nested(nf.CTA_FILTER, flags) + tuples


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
    source, destination = attribute(_SRC[family], address), attribute(_DST[family], address)
    begin = nested(nf.CTA_TUPLE_IP, source, destination)[:8]
    ends = b"|".join(re.escape(attribute(_DST[family], one)) for one in addresses)
    pattern = re.compile(re.escape(begin) + b".{%d}(?:%s)" % (size, ends), re.DOTALL)

    def find(packet: bytes) -> Iterator[bytes]:
        for match in pattern.finditer(packet):
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
    original = attributes(found[nf.CTA_TUPLE_ORIG], 0)
    reply = attributes(found[nf.CTA_TUPLE_REPLY], 0)
    protocol = attributes(original[nf.CTA_TUPLE_PROTO], 0)
    ip = attributes(original[nf.CTA_TUPLE_IP], 0)
    return _Flow(
        client=ip[_SRC[family]],
        asked=ip[_DST[family]],
        port=int.from_bytes(protocol[nf.CTA_PROTO_DST_PORT], "big"),
        answering=attributes(reply[nf.CTA_TUPLE_IP], 0)[_SRC[family]],
        mark=int.from_bytes(found.get(nf.CTA_MARK, b""), "big"),
    )


def _answer(ranges: list[tuple[bytes, bytes, bytes]], flow: _Flow) -> bytes:
    """The address that the client is answered from now; where none is known, as it was."""
    place = bisect.bisect_right(ranges, flow.client, key=lambda r: r[0]) - 1
    if place < 0 or flow.client > ranges[place][1]:
        return flow.answering
    return ranges[place][2]

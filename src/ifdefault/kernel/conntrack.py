"""Connection tracking entries (linux/netfilter/nfnetlink_conntrack.h): find and delete.

Rules: deletes exactly the entries that it was asked for, by their own tuple and id, or by the
kernel's own filter where that can be relied upon.
"""

from __future__ import annotations

import bisect
import errno
import socket
import struct
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ifdefault.kernel import sysctl
from ifdefault.kernel.netlink import (
    NETLINK_NETFILTER,
    Netlink,
    attribute,
    attribute_u32,
    attributes,
)
from ifdefault.kernel.rtnetlink import AF, BITS, packed
from ifdefault.model import Redirect
from ifdefault.wanted import FAMILIES, Family

_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY, _MARK, _ID, _ZONE, _MARK_MASK, _FILTER = 1, 2, 8, 12, 18, 21, 25
_IP, _PROTO, _PROTO_NUMBER, _PROTO_DST_PORT = 1, 2, 1, 3
_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_DST = {4: 2, 6: 4}
_NESTED = 0x8000


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
            header = struct.pack("=BBH", AF[family], 0, 0)
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
_DELETED_AT_ONCE = 2000


def forget_outgoing(addresses: Sequence[str], marks: Sequence[int] = (), mask: int = 0) -> int:
    """Delete the entries whose answers come to one of these addresses (the host's own outgoing
    flows, and those that it masquerades), or whose mark under `mask` is one of `marks`. How many
    went; others that ended or began meanwhile count in.

    Flows to the addresses stay: their answers go elsewhere. Flows of the host to itself don't;
    unless redirected they are tracked anew with their next packet.
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
        listed = [packed(address) for address in addresses]
        for address in tuple(listed):
            if len(address) == 4 and _flush(netlink, address):
                listed.remove(address)
        for family in FAMILIES:
            if of_family := [a for a in listed if len(a) * 8 == BITS[family]]:
                _delete_listed(netlink, family, of_family)
    return max(0, before - _count())


def _flush(netlink: Netlink, address: bytes) -> bool:
    """Delete by the kernel's filter; False where it has none for this.

    Linux 6.11 has (CTA_FILTER in IPCTNL_MSG_CT_DELETE). Older ones ignore the filter, look for the
    one entry of the tuple, and refuse one without a protocol. Not for IPv6: there Linux (6.18 at
    least) compares the wrong way round, and would delete all but what we want.
    """
    try:
        netlink.change(_DELETE, _to_address(4, address))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _to_address(family: Family, address: bytes) -> bytes:
    """The filter for the entries that are answered to an address."""
    ip = attribute(_IP | _NESTED, attribute(_DST[family], address))
    picked = attribute(_FILTER | _NESTED, attribute_u32(2, 1 << 1))  # REPLY_FLAGS: CTA_IP_DST
    return struct.pack("=BBH", AF[family], 0, 0) + picked + attribute(_REPLY | _NESTED, ip)


def _delete_listed(netlink: Netlink, family: Family, addresses: list[bytes]) -> None:
    """List all entries of a family, and delete those that are answered to one of the addresses,
    each by its reply's tuple, which holds the address.

    An entry opens with its original tuple and its reply's, each with source and destination first;
    looking no further is what makes this quick where most are others'.
    """
    header = struct.pack("=BBH", AF[family], 0, 0)
    wanted = {attribute(_DST[family], address) for address in addresses}
    size = 4 + BITS[family] // 8
    at = 4 + 4 + size  # of the destination, behind two nests and the source
    found: list[bytes] = []
    # the kernel lists and deletes on two cores
    with Netlink(NETLINK_NETFILTER) as listing, ThreadPoolExecutor(1) as deleting:
        for message in listing.stream(_GET, header):
            reply = 4 + _u16(message, 4)
            if message[reply + at : reply + at + size] in wanted:
                end = reply + _u16(message, reply)
                # the zone, of those that aren't in the usual one, is next
                zone = message[end : end + 8] if _u16(message, end + 2) == _ZONE else b""
                found.append(header + message[reply:end] + zone)
            if len(found) >= _DELETED_AT_ONCE:
                deleting.submit(netlink.cast, _DELETE, found)
                found = []
        deleting.submit(netlink.cast, _DELETE, found).result()


def _u16(message: bytes, at: int) -> int:
    return int.from_bytes(message[at : at + 2], sys.byteorder)


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

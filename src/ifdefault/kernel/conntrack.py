"""Connection tracking entries (linux/netfilter/nfnetlink_conntrack.h): find and delete.

Rules: deletes exactly the entries that it was asked for, by their own tuple and id.
"""

from __future__ import annotations

import bisect
import socket
import struct
from dataclasses import dataclass

from ifdefault.kernel.netlink import (
    NETLINK_NETFILTER,
    Netlink,
    attribute,
    attribute_u32,
    attributes,
)
from ifdefault.kernel.rtnetlink import AF, packed
from ifdefault.model import Family, Redirect

_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY, _MARK, _ID, _FILTER = 1, 2, 8, 12, 25
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

"""Connection tracking entries (linux/netfilter/nfnetlink_conntrack.h): find and delete.

Rules: deletes exactly the entries that it was asked for, by their own tuple and id.
"""

from __future__ import annotations

import bisect
import socket
import struct

from ifdefault.kernel.netlink import NETLINK_NETFILTER, Netlink, attribute, attributes
from ifdefault.kernel.rtnetlink import AF, packed
from ifdefault.model import Family, Redirect

_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY, _MARK, _ID = 1, 2, 8, 12
_IP, _PROTO, _PROTO_NUMBER = 1, 2, 1
_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_NESTED = 0x8000


def forget_redirected(redirects: tuple[Redirect, ...], mask: int) -> int:
    """Delete the UDP entries with a mark of ours that are answered from another address than the
    one that `redirects` now gives their client; how many they were."""
    deleted = 0
    with Netlink(NETLINK_NETFILTER) as netlink:
        for family in {r.family for r in redirects}:
            ranges = sorted(
                (packed(r.first), packed(r.last), packed(r.address))
                for r in redirects
                if r.family == family
            )
            header = struct.pack("=BBH", AF[family], 0, 0)
            for message in netlink.dump(_GET, header):
                found = attributes(message, 4)
                if _is_stale(family, found, ranges, mask):
                    body = header + attribute(_ORIGINAL | _NESTED, found[_ORIGINAL])
                    deleted += _delete(body + attribute(_ID, found[_ID]))
    return deleted


def _is_stale(
    family: Family, found: dict[int, bytes], ranges: list[tuple[bytes, bytes, bytes]], mask: int
) -> bool:
    original, reply = attributes(found[_ORIGINAL], 0), attributes(found[_REPLY], 0)
    if attributes(original[_PROTO], 0)[_PROTO_NUMBER][0] != socket.IPPROTO_UDP:
        return False
    if not int.from_bytes(found.get(_MARK, b""), "big") & mask:
        return False
    client = attributes(original[_IP], 0)[_SOURCE[family]]
    answering = attributes(reply[_IP], 0)[_SOURCE[family]]
    place = bisect.bisect_right(ranges, client, key=lambda r: r[0]) - 1
    if place < 0 or client > ranges[place][1]:
        return False
    return answering != ranges[place][2]


def _delete(body: bytes) -> int:
    # a socket of its own: the dump may still be coming in on the other
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            netlink.change(_DELETE, body)
        except FileNotFoundError:
            return 0  # it ended by itself
    return 1

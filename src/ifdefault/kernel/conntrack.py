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
_ORIGINAL, _REPLY, _ID, _FILTER = 1, 2, 12, 25
_IP, _PROTO, _PROTO_NUMBER, _PROTO_DST_PORT = 1, 2, 1, 3
_SOURCE = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_DST = {4: 2, 6: 4}
_NESTED = 0x8000
_FILTER_PROTO_NUMBER, _FILTER_PROTO_DST_PORT = 1 << 3, 1 << 5


def forget_redirected(
    redirects: tuple[Redirect, ...],
    ports: tuple[tuple[Family, int], ...],
    addresses: tuple[str, ...],
) -> int:
    """Delete the UDP entries from outside to one of these ports and addresses that are answered
    from another of the addresses than `redirects` now gives their client; how many they were.

    What others redirect elsewhere, to a container, stays theirs.
    """
    own = {packed(address) for address in addresses}
    deleted = 0
    with Netlink(NETLINK_NETFILTER) as netlink:
        for family in {r.family for r in redirects}:
            ranges = sorted(
                (packed(r.first), packed(r.last), packed(r.address))
                for r in redirects
                if r.family == family
            )
            header = struct.pack("=BBH", AF[family], 0, 0)
            for port in (port for of_family, port in ports if of_family == family):
                for message in netlink.dump(_GET, header + _udp_to(port)):
                    found = attributes(message, 4)
                    flow = _read(family, found)
                    stale = flow.answering != _answer(ranges, flow)
                    if stale and {flow.asked, flow.answering} <= own:
                        body = header + attribute(_ORIGINAL | _NESTED, found[_ORIGINAL])
                        deleted += _delete(body + attribute(_ID, found[_ID]))
    return deleted


def _udp_to(port: int) -> bytes:
    """Let the kernel pick the entries: there may be very many others (Linux 5.8)."""
    protocol = attribute(_PROTO_NUMBER, bytes([socket.IPPROTO_UDP]))
    protocol += attribute(_PROTO_DST_PORT, struct.pack("!H", port))
    wanted = attribute_u32(1, _FILTER_PROTO_NUMBER | _FILTER_PROTO_DST_PORT)
    return attribute(_FILTER | _NESTED, wanted) + attribute(
        _ORIGINAL | _NESTED, attribute(_PROTO | _NESTED, protocol)
    )


@dataclass(frozen=True, slots=True)
class _Flow:
    client: bytes
    asked: bytes
    answering: bytes


def _read(family: Family, found: dict[int, bytes]) -> _Flow:
    original, reply = attributes(found[_ORIGINAL], 0), attributes(found[_REPLY], 0)
    ip = attributes(original[_IP], 0)
    return _Flow(
        client=ip[_SOURCE[family]],
        asked=ip[_DST[family]],
        answering=attributes(reply[_IP], 0)[_SOURCE[family]],
    )


def _answer(ranges: list[tuple[bytes, bytes, bytes]], flow: _Flow) -> bytes:
    """The address that the client is answered from now; where none is known, as it was."""
    place = bisect.bisect_right(ranges, flow.client, key=lambda r: r[0]) - 1
    if place < 0 or flow.client > ranges[place][1]:
        return flow.answering
    return ranges[place][2]


def _delete(body: bytes) -> int:
    # a socket of its own: the dump may still be coming in on the other
    with Netlink(NETLINK_NETFILTER) as netlink:
        try:
            netlink.change(_DELETE, body)
        except FileNotFoundError:
            return 0  # it ended by itself
    return 1

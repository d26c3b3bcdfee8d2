"""Which sockets listen, and which of UDP to no address (sock_diag(7), linux/inet_diag.h)."""

from __future__ import annotations

import socket
import struct

from ifdefault.kernel.netlink import NETLINK_SOCK_DIAG, Netlink, attributes
from ifdefault.model.config import Family

_SOCK_DIAG_BY_FAMILY = 20
_UNCONNECTED, _LISTEN = 1 << 7, 1 << 10  # UDP's idle state is TCP_CLOSE
_SERVERS = (("tcp", socket.IPPROTO_TCP, _LISTEN), ("udp", socket.IPPROTO_UDP, _UNCONNECTED))
_V6ONLY = 11  # INET_DIAG_SKV6ONLY
_ADDRESS_AT, _INTERFACE_AT, _MESSAGE_BYTES = 8, 40, 72


def wildcard_udp(netlink: Netlink | None = None) -> tuple[tuple[Family, int], ...]:
    """(family, port) of each UDP socket that is bound to any address and to no interface.

    A dual-stack socket (on :: without IPV6_V6ONLY) counts in both families.
    """
    own = netlink or Netlink(NETLINK_SOCK_DIAG)
    found: set[tuple[Family, int]] = set()
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            query = struct.pack("=BBBxI48x", family, socket.IPPROTO_UDP, 0, _UNCONNECTED)
            for message in own.dump(_SOCK_DIAG_BY_FAMILY, query):
                found.update(_read(message))
    finally:
        if netlink is None:
            own.close()
    return tuple(sorted(found))


def listening() -> tuple[tuple[str, str, int], ...]:
    """(transport, address, port) of each socket that hears from anybody and is bound to no
    interface. A dual-stack socket counts for both families."""
    found: set[tuple[str, str, int]] = set()
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        for transport, number, states in _SERVERS:
            for family in (socket.AF_INET, socket.AF_INET6):
                query = struct.pack("=BBBxI48x", family, number, 0, states)
                for message in netlink.dump(_SOCK_DIAG_BY_FAMILY, query):
                    if any(message[_INTERFACE_AT : _INTERFACE_AT + 4]):
                        continue
                    port = int.from_bytes(message[4:6], "big")
                    size = 4 if family == socket.AF_INET else 16
                    raw = message[_ADDRESS_AT : _ADDRESS_AT + size]
                    found.add((transport, socket.inet_ntop(family, raw), port))
                    if any(family == 4 for family, _ in _read(message)):
                        found.add((transport, "0.0.0.0", port))
    return tuple(sorted(found))


def _read(message: bytes) -> set[tuple[Family, int]]:
    port = int.from_bytes(message[4:6], "big")
    address = message[_ADDRESS_AT : _ADDRESS_AT + 16]
    (interface,) = struct.unpack_from("=I", message, _INTERFACE_AT)
    if interface or any(address) or not port:
        return set()
    if message[0] == socket.AF_INET:
        return {(4, port)}
    only = attributes(message, _MESSAGE_BYTES).get(_V6ONLY, b"\0")[0]
    return {(6, port)} if only else {(4, port), (6, port)}

"""Sockets for probes: each is bound to an uplink by address and device, and by mark where needed.

Rules: opened with the engine's rights, for the unprivileged frontend: open sockets need no rights
to send and receive, and can't be bound again. Sockets are non-blocking. An OSError is a local
error, and not evidence about an uplink.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from ifdefault.kernel.rtnetlink import AF
from ifdefault.kernel.uapi import socket as so
from ifdefault.model.config import Family

_ECHO_REPLY = {4: so.ICMP_ECHOREPLY, 6: so.ICMPV6_ECHO_REPLY}
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FILTER = {4: (so.SOL_RAW, so.ICMP_FILTER), 6: (socket.IPPROTO_ICMPV6, so.ICMPV6_FILTER)}
_FILTER_WORDS = {4: 1, 6: 8}
_BUFFER_BYTES = 1 << 16  # about a hundred small packets with the kernel's overhead


def icmp_socket(
    family: Family, address: str, dev: str, mark: int = 0, *, types: Sequence[int] = ()
) -> socket.socket:
    """A raw ICMP socket that receives only echo replies, including those to other programs (and
    any ICMP that arrives before its filter is set), or other `types`. IPv4 packets include the IP
    header; the kernel computes ICMPv6 checksums (RFC 3542, 3.1).

    A ping socket (IPPROTO_ICMP datagrams) isn't permitted in most namespaces (`ping_group_range`).
    """
    sock = _socket(family, socket.SOCK_RAW, _PROTOCOL[family])
    blocked = [0xFFFFFFFF] * _FILTER_WORDS[family]
    for number in types or (_ECHO_REPLY[family],):
        blocked[number // 32] ^= 1 << number % 32  # a set bit blocks a type
    sock.setsockopt(*_FILTER[family], struct.pack(f"={len(blocked)}I", *blocked))
    return _bound(sock, address, dev, mark)


def stream_socket(family: Family, address: str, dev: str, mark: int = 0) -> socket.socket:
    """A TCP socket for connect()."""
    return _bound(_bind_without_port(_socket(family, socket.SOCK_STREAM)), address, dev, mark)


def unbound_socket(family: Family) -> socket.socket:
    """A TCP socket for connect() to a server on an internal network, bound to no uplink."""
    return _buffered(_socket(family, socket.SOCK_STREAM))


def datagram_socket(family: Family, address: str, dev: str, mark: int = 0) -> socket.socket:
    """A UDP socket for connect()."""
    return _bound(_bind_without_port(_socket(family, socket.SOCK_DGRAM)), address, dev, mark)


def _socket(family: Family, kind: int, protocol: int = 0) -> socket.socket:
    return socket.socket(AF[family], kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)


def _bind_without_port(sock: socket.socket) -> socket.socket:
    """Let connect() choose the port: the same port can be used for several destinations."""
    sock.setsockopt(socket.IPPROTO_IP, so.IP_BIND_ADDRESS_NO_PORT, 1)
    return sock


def _buffered(sock: socket.socket) -> socket.socket:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return sock


def _bound(sock: socket.socket, address: str, dev: str, mark: int) -> socket.socket:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode())
        _buffered(sock)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if sock.family == socket.AF_INET:
            sock.bind((address, 0))
        else:  # a link-local address needs its scope
            scope = socket.if_nametoindex(dev) if address.startswith("fe80:") else 0
            sock.bind((address, 0, 0, scope))
    except OSError:
        sock.close()
        raise
    return sock

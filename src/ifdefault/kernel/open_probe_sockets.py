"""Sockets for probes: each is bound to an uplink by address and device, and by mark where needed.

Rules: made with the engine's rights, for a process that has none: once open they need none to
send and receive, and can't be bound elsewhere. Non-blocking. An OSError from here is this host's
own fault and says nothing of an uplink.
"""

from __future__ import annotations

import socket
import struct

from ifdefault.kernel.rtnetlink import AF
from ifdefault.kernel.uapi import socket as so
from ifdefault.model.config import Family

_ECHO_REPLY = {4: so.ICMP_ECHOREPLY, 6: so.ICMPV6_ECHO_REPLY}
_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FILTER = {4: (so.SOL_RAW, so.ICMP_FILTER), 6: (socket.IPPROTO_ICMPV6, so.ICMPV6_FILTER)}
_FILTER_WORDS = {4: 1, 6: 8}
_BUFFER_BYTES = 1 << 16  # some hundred small packets, as the kernel counts


def icmp_socket(family: Family, address: str, dev: str, mark: int = 0) -> socket.socket:
    """A raw ICMP socket that hears echo replies alone, those to others' requests too (and
    whatever came in the instant before its filter stood). IPv4 packets come with their IP header;
    ICMPv6's checksum is the kernel's work (RFC 3542, 3.1).

    Raw, since `ping_group_range`, which the other kind asks, is closed in most namespaces.
    """
    sock = _socket(family, socket.SOCK_RAW, _PROTOCOL[family])
    heard, blocked = _ECHO_REPLY[family], [0xFFFFFFFF] * _FILTER_WORDS[family]
    blocked[heard // 32] ^= 1 << heard % 32  # a set bit blocks a type
    sock.setsockopt(*_FILTER[family], struct.pack(f"={len(blocked)}I", *blocked))
    return _bound(sock, address, dev, mark)


def stream_socket(family: Family, address: str, dev: str, mark: int = 0) -> socket.socket:
    """A TCP socket to connect."""
    return _bound(_ports_late(_socket(family, socket.SOCK_STREAM)), address, dev, mark)


def unbound_socket(family: Family) -> socket.socket:
    """A TCP socket to connect to what lies behind the host: it leaves as the host's own do."""
    return _buffered(_socket(family, socket.SOCK_STREAM))


def datagram_socket(family: Family, address: str, dev: str, mark: int = 0) -> socket.socket:
    """A UDP socket to connect."""
    return _bound(_ports_late(_socket(family, socket.SOCK_DGRAM)), address, dev, mark)


def _socket(family: Family, kind: int, protocol: int = 0) -> socket.socket:
    return socket.socket(AF[family], kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)


def _ports_late(sock: socket.socket) -> socket.socket:
    """The port is chosen at connect, when the other end is known: far more flows fit."""
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
        else:  # a link-local address is one only together with its interface
            scope = socket.if_nametoindex(dev) if address.startswith("fe80:") else 0
            sock.bind((address, 0, 0, scope))
    except OSError:
        sock.close()
        raise
    return sock

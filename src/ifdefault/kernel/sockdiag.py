"""List sockets (sock_diag(7), linux/inet_diag.h), with a filter in the kernel.

Rules: the kernel filters (`socket_filter`), so that other sockets cost next to nothing. Addresses
of both families are 16 bytes, IPv4's mapped into IPv6.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attribute, attributes, u32
from ifdefault.kernel.rtnetlink import AF
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG
from ifdefault.model.config import FAMILIES, Family

CONNECTED = (  # all between SYN_SENT and TIME_WAIT
    diag.TCP_ESTABLISHED,
    diag.TCP_SYN_SENT,
    diag.TCP_FIN_WAIT1,
    diag.TCP_FIN_WAIT2,
    diag.TCP_CLOSE_WAIT,
    diag.TCP_LAST_ACK,
    diag.TCP_CLOSING,
)
MESSAGE_BYTES = 72  # struct inet_diag_msg, before the attributes
ID = slice(4, 52)  # its struct inet_diag_sockid
COOKIE = slice(44, 52)
_INODE = slice(68, 72)
_SOURCE, _DESTINATION, _INTERFACE = slice(8, 24), slice(24, 40), slice(40, 44)
_UID = slice(64, 68)

WILDCARD = bytes(16)
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2
_OLD_REQUEST = struct.Struct("=BxxB48sIxxxx")  # struct inet_diag_req
_ALL_STATES = 0xFFFFFFFF
_MPTCP = b"mptcp\0"  # the name of its upper layer protocol
MAPPED = bytes(10) + b"\xff\xff"  # prefix of IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2)


def query_both(states: Sequence[int], program: bytes = b"", extension: int = 0) -> bytes:
    """The body of a TCPDIAG_GETSOCK request for all TCP sockets in these states, with the attribute
    `extension`. It covers both families, so that the kernel walks its hash table, which may have
    half a million buckets, once instead of twice."""
    mask = sum(1 << state for state in states)
    body = _OLD_REQUEST.pack(0, _bit(extension), bytes(48), mask)
    return body + attribute(diag.INET_DIAG_REQ_BYTECODE, program) if program else body


def query_one(message: bytes, extension: int = 0, protocol: int = socket.IPPROTO_TCP) -> bytes:
    """The body of a request for the socket of a message; its cookie excludes later sockets with the
    same addresses."""
    return _REQUEST.pack(message[0], protocol, _bit(extension), _ALL_STATES, message[ID])


def _bit(extension: int) -> int:
    return 1 << extension - 1 if extension else 0


def local_port(message: bytes) -> int:
    return int.from_bytes(message[4:6], "big")


def remote_port(message: bytes) -> int:
    return int.from_bytes(message[6:8], "big")


def uid(message: bytes) -> int:
    return u32(message[_UID])


def is_bound_to_interface(message: bytes) -> bool:
    return any(message[_INTERFACE])


def local_address(message: bytes) -> bytes:
    """16 bytes, IPv4 mapped into IPv6; WILDCARD for the wildcard address of either family."""
    return _address(message, _SOURCE)


def remote_address(message: bytes) -> bytes:
    return _address(message, _DESTINATION)


def _address(message: bytes, where: slice) -> bytes:
    address = message[where]
    if message[0] == socket.AF_INET and any(address):
        return MAPPED + address[:4]
    return address


@decodes
def mark(message: bytes) -> int:
    """The mark of a socket, 0 if the kernel doesn't tell it (without CAP_NET_ADMIN)."""
    return u32(attributes(message, MESSAGE_BYTES).get(diag.INET_DIAG_MARK))


@decodes
def cgroup(message: bytes) -> int | None:
    """The id of the control group in which a socket was made; None if the kernel doesn't tell
    (before Linux 5.8)."""
    found = attributes(message, MESSAGE_BYTES).get(diag.INET_DIAG_CGROUP_ID)
    return None if found is None else int.from_bytes(found, sys.byteorder)


@decodes
def mptcp_token(message: bytes) -> bytes | None:
    """The token of the MPTCP connection that a TCP socket is a subflow of, b"" for a listener of
    MPTCP; None for plain TCP, and for all if the kernel doesn't tell it: without CAP_NET_ADMIN, or
    if INET_DIAG_INFO wasn't asked for."""
    if _MPTCP not in message:  # most have none, and looking into the attributes takes longer
        return None
    ulp = attributes(attributes(message, MESSAGE_BYTES).get(diag.INET_DIAG_ULP_INFO, b""), 0)
    subflow = attributes(ulp.get(diag.INET_ULP_INFO_MPTCP, b""), 0)
    return subflow.get(diag.MPTCP_SUBFLOW_ATTR_TOKEN_LOC, b"")


@decodes
def text(address: bytes) -> str:
    if address.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


# --- servers ----------------------------------------------------------------------------------

# UDP's idle state is TCP_CLOSE
_SERVERS = (
    ("tcp", socket.IPPROTO_TCP, diag.TCP_LISTEN),
    ("udp", socket.IPPROTO_UDP, diag.TCP_CLOSE),
)


def wildcard_udp(netlink: Netlink | None = None) -> tuple[tuple[Family, int], ...]:
    """(family, port) of each UDP socket bound to the wildcard address and to no interface.

    A dual-stack socket (on :: without IPV6_V6ONLY) counts in both families.
    """
    own = netlink or Netlink(NETLINK_SOCK_DIAG)
    try:
        messages = listed(own, socket.IPPROTO_UDP, diag.TCP_CLOSE)
        return tuple(sorted({pair for message in messages for pair in wildcard_ports(message)}))
    finally:
        if netlink is None:
            own.close()


def listening() -> tuple[tuple[str, str, int], ...]:
    """(transport, address, port) of each listening or unconnected socket that is bound to no
    interface. A dual-stack socket counts in both families."""
    sockets: set[tuple[str, str, int]] = set()
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        for transport, protocol, state in _SERVERS:
            for message in listed(netlink, protocol, state):
                port = local_port(message)
                sockets |= {(transport, address, port) for address in decode_listener(message)}
    return tuple(sorted(sockets))


@dataclass(frozen=True, order=True, slots=True)
class Listener:
    """A TCP socket that listens. `inode`: as in /proc/PID/fd; `addresses`: it has both wildcards if
    it is dual-stack, and none if it is bound to an interface."""

    port: int
    addresses: tuple[str, ...]
    inode: int


def plain_listeners() -> tuple[Listener, ...]:
    """The TCP sockets that listen and don't accept MPTCP. Needs CAP_NET_ADMIN."""
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        messages = listed(
            netlink, socket.IPPROTO_TCP, diag.TCP_LISTEN, extension=diag.INET_DIAG_INFO
        )
        return tuple(
            sorted(
                Listener(local_port(message), decode_listener(message), u32(message[_INODE]))
                for message in messages
                if mptcp_token(message) is None
            )
        )


@decodes
def decode_listener(message: bytes) -> tuple[str, ...]:
    """The addresses that a socket listens on; none if it is bound to an interface."""
    if any(message[_INTERFACE]):
        return ()
    size = 4 if message[0] == socket.AF_INET else 16
    address = socket.inet_ntop(message[0], message[_SOURCE][:size])
    dual = any(family == 4 for family, _ in wildcard_ports(message))
    return (address, "0.0.0.0") if dual and size == 16 else (address,)


def listed(
    netlink: Netlink, protocol: int, state: int, program: bytes = b"", extension: int = 0
) -> Iterator[bytes]:
    """The sockets of both families in this state. UDP sockets are in TCP_ESTABLISHED if they are
    connected, otherwise in TCP_CLOSE."""
    for family in FAMILIES:
        body = _REQUEST.pack(AF[family], protocol, _bit(extension), 1 << state, bytes(48))
        body += attribute(diag.INET_DIAG_REQ_BYTECODE, program) if program else b""
        yield from netlink.dump(diag.SOCK_DIAG_BY_FAMILY, body)


@decodes
def wildcard_ports(message: bytes) -> tuple[tuple[Family, int], ...]:
    port = local_port(message)
    if any(message[_INTERFACE]) or any(message[_SOURCE]) or not port:
        return ()
    if message[0] == socket.AF_INET:
        return ((4, port),)
    v6only = attributes(message, MESSAGE_BYTES).get(diag.INET_DIAG_SKV6ONLY, b"\0")[0]
    return ((6, port),) if v6only else ((4, port), (6, port))

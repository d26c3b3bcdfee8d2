"""ICMP errors, as the kernel queues them for a socket, with the packets that they quote (ip(7),
IP_RECVERR).

Rules: anybody may send one. The kernel passes an error on to a TCP socket only if it quotes a
sequence number that is in flight (tcp_v4_err, tcp_v6_err), but to a UDP socket if the ports are
right, and whoever tries all of them is right at some time. So an error over UDP counts only if it
quotes the query's ID, and is never an answer.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_RECVERR = ((socket.IPPROTO_IP, 11), (socket.IPPROTO_IPV6, 25))  # IP_RECVERR, IPV6_RECVERR
_ERROR = struct.Struct("=IBBBxII")  # linux/errqueue.h, struct sock_extended_err
_ICMP = (2, 3)  # its origins: ICMP, ICMPv6
# what the kernel makes of ICMP errors (icmp_err_convert, icmpv6_err_convert)
_NUMBERS = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "EMSGSIZE", "ENETUNREACH"),
        *("ENONET", "ENOPROTOOPT", "EOPNOTSUPP", "EPROTO"),
    )
)
_MOST_BYTES = 4096  # of a response
_QUOTED_BYTES = 512
_ID_BYTES = 2
_TURN = 64  # errors read before somebody else's turn


@dataclass(eq=False)
class IcmpError(Exception):
    """`sender`: the address of the router or host that it says it is from; `quoted`: the packet
    that it is about, from after its UDP header on."""

    number: int  # errno
    sender: str
    quoted: bytes

    def quotes(self, query: bytes) -> bool:
        size = min(len(self.quoted), len(query))
        return size >= _ID_BYTES and self.quoted[:size] == query[:size]


def enable(sock: socket.socket) -> None:
    """Have the kernel queue errors."""
    sock.setsockopt(*_RECVERR[sock.family == socket.AF_INET6], 1)


def read(sock: socket.socket) -> list[IcmpError]:
    """Queued errors, some at a time."""
    errors: list[IcmpError] = []
    for _ in range(_TURN):
        try:
            quoted, ancillary, _, _ = sock.recvmsg(_QUOTED_BYTES, 512, socket.MSG_ERRQUEUE)
        except OSError:
            break
        for level, kind, data in ancillary:
            if (level, kind) in _RECVERR and len(data) >= _ERROR.size and data[4] in _ICMP:
                number = int(_ERROR.unpack_from(data)[0])
                errors.append(IcmpError(number, _read_address(data[_ERROR.size :]), quoted))
    return errors


def _read_address(data: bytes) -> str:
    family = struct.unpack_from("=H", data)[0] if len(data) >= 2 else 0
    if family == socket.AF_INET and len(data) >= 8:
        return socket.inet_ntop(family, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(family, data[8:24])
    return ""


async def receive(sock: socket.socket, query: bytes, accept: Callable[[bytes], T | None]) -> T:
    """What `accept` makes of the first datagram for which it isn't None. Raises IcmpError for an
    error that quotes the query; OSError for another one that isn't from the network."""
    loop = asyncio.get_running_loop()
    while True:
        # always: while any are queued, the socket wakes us, though recv(2) has nothing to tell
        for each in read(sock):
            if each.quotes(query):
                raise each
        try:
            accepted = accept(await loop.sock_recv(sock, _MOST_BYTES))
        except OSError as error:
            if error.errno not in _NUMBERS:
                raise
        else:
            if accepted is not None:
                return accepted
        await asyncio.sleep(0)  # whatever floods this socket doesn't keep others waiting

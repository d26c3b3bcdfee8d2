"""TCP sockets as the kernel lists them (sock_diag(7), linux/inet_diag.h), and which of them.

Rules: the kernel picks (INET_DIAG_REQ_BYTECODE), so that sockets which nobody asked for cost next
to nothing. Sockets of both families are told with their addresses in one form (`Local`).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence

from ifdefault.kernel.netlink import attribute
from ifdefault.kernel.rtnetlink import packed

BOTH, BY_FAMILY, DESTROY = 18, 20, 21  # TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
AFS = (socket.AF_INET, socket.AF_INET6)
ESTABLISHED, SYN_RECEIVED, LISTEN = 1, 3, 10
CONNECTED = (ESTABLISHED, 2, 4, 5, 8, 9, 11)  # all between SYN_SENT and TIME_WAIT
MESSAGE_BYTES = 72  # struct inet_diag_msg, before the attributes
ID = slice(4, 52)  # struct inet_diag_sockid in it
COOKIE = slice(44, 52)
TCP_INFO = 2  # INET_DIAG_INFO

ANYWHERE = bytes(16)
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2
_OLD_REQUEST = struct.Struct("=BxxB48sIxxxx")  # struct inet_diag_req
_ALL_STATES = 0xFFFFFFFF
_MAPPED = bytes(10) + b"\xff\xff"

Condition = tuple[int, bytes]  # what is compared, and with what


def query(af: int, states: Sequence[int], program: bytes = b"", extension: int = 0) -> bytes:
    """The body of a request for all sockets in these states; `extension` is an attribute more."""
    mask = sum(1 << state for state in states)
    body = _REQUEST.pack(af, socket.IPPROTO_TCP, _bit(extension), mask, bytes(48))
    return body + attribute(1, program) if program else body


def query_both(states: Sequence[int], program: bytes = b"", extension: int = 0) -> bytes:
    """The same for both families at once, of type BOTH: the kernel walks its table, which may have
    half a million places, once instead of twice."""
    mask = sum(1 << state for state in states)
    body = _OLD_REQUEST.pack(0, _bit(extension), bytes(48), mask)
    return body + attribute(1, program) if program else body


def one(message: bytes, extension: int = 0) -> bytes:
    """The body of a request for this very socket, and none that comes after it."""
    return _REQUEST.pack(message[0], socket.IPPROTO_TCP, _bit(extension), _ALL_STATES, message[ID])


def _bit(extension: int) -> int:
    return 1 << extension - 1 if extension else 0


def local_port(message: bytes) -> int:
    return int.from_bytes(message[4:6], "big")


def local_address(message: bytes) -> bytes:
    """16 bytes, IPv4's mapped into IPv6; ANYWHERE for both families' wildcards."""
    address = message[8:24]
    if message[0] == socket.AF_INET and any(address):
        return _MAPPED + address[:4]
    return address


def text(address: bytes) -> str:
    if address.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


# --- the filter ------------------------------------------------------------------------------
# Each instruction says how far to go on if it holds (yes) and if not (no); who arrives exactly at
# the end is in, who jumps four bytes beyond is out.

_OPERATION = struct.Struct("=BBH")
_JUMP, _FROM, _TO, _MARK = 1, 7, 8, 10
_HOST = struct.Struct("=BBxxi")  # struct inet_diag_hostcond
_ANY_PORT = -1


def is_from(address: str) -> Condition:
    return _FROM, _host(address)


def is_to(prefix: str) -> Condition:
    return _TO, _host(prefix)


def is_from_port(port: int) -> Condition:
    return _FROM, _HOST.pack(socket.AF_UNSPEC, 0, port)


def is_marked(mark: int, mask: int) -> Condition:
    return _MARK, struct.pack("=II", mark, mask)


def _host(prefix: str) -> bytes:
    """IPv4 conditions hold for IPv6 sockets with mapped addresses as well."""
    address, _, length = prefix.partition("/")
    raw = packed(address)
    af = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return _HOST.pack(af, int(length or len(raw) * 8), _ANY_PORT) + raw


def program(any_of: Sequence[Condition], none_of: Sequence[Condition]) -> bytes:
    """Takes what meets one of `any_of`, if there are any, and none of `none_of`."""
    tail = sum(8 + len(operand) for _, operand in none_of)
    return b"".join((*_one_of(any_of, tail), *_none_of(none_of, tail)))


def _one_of(conditions: Sequence[Condition], tail: int) -> Iterator[bytes]:
    """Go on to the tail as soon as one holds, else out."""
    left = sum(8 + len(operand) for _, operand in conditions)
    for code, operand in conditions:
        size = 4 + len(operand)
        left -= size + 4
        last = not left
        yield _OPERATION.pack(code, size, size + 4 + (4 + tail if last else 0)) + operand
        yield _OPERATION.pack(_JUMP, 4, 4 + left)


def _none_of(conditions: Sequence[Condition], left: int) -> Iterator[bytes]:
    """Out as soon as one holds."""
    for code, operand in conditions:
        size = 4 + len(operand)
        left -= size + 4
        yield _OPERATION.pack(code, size, size + 4) + operand
        yield _OPERATION.pack(_JUMP, 4, 4 + left + 4)

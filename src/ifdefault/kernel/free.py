"""Lets go of what hangs on a dead uplink: its outgoing TCP sockets and tracked flows.

Rules: outgoing alone; inbound connections are left to return with the uplink. A socket whose local
port has a listener is inbound. What is another uplink's is never touched; the kernel itself picks
the sockets (INET_DIAG_REQ_BYTECODE), so that it costs next to nothing either.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ifdefault.kernel import conntrack
from ifdefault.kernel.netlink import NETLINK_SOCK_DIAG, Netlink, attribute
from ifdefault.kernel.rtnetlink import packed


@dataclass(frozen=True, order=True, slots=True)
class Freed:
    """How many went; `flows` as the table of tracked connections shrank meanwhile."""

    sockets: int = 0
    flows: int = 0


def free(
    addresses: Sequence[str],
    marks: Sequence[int] = (),
    mask: int = 0,
    spared: Sequence[str] = (),
) -> Freed:
    """Destroy the outgoing TCP sockets (their programs see ECONNABORTED) and delete the tracked
    flows that have one of these source addresses, or one of `marks` under `mask`.

    `spared`: prefixes that are reached without the uplink (the host's own addresses, its LANs);
    sockets connected to them stay.
    """
    if any(not mark or mark & ~mask for mark in marks):
        raise ValueError("a mark of 0, or one with bits outside the mask, may be anybody's")
    if not addresses and not marks:
        return Freed()
    return Freed(
        _destroy(addresses, marks, mask, spared),
        conntrack.forget_outgoing(addresses, marks, mask),
    )


# --- sockets (sock_diag(7), linux/inet_diag.h) -----------------------------------------------

_BY_FAMILY, _DESTROY = 20, 21
_STATES = {"listen": 1 << 10, "connected": sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11))}
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2
_ID = slice(4, 52)  # struct inet_diag_sockid in struct inet_diag_msg
_PORT, _SOURCE = slice(4, 6), slice(8, 24)
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_PORTS_MAX = 500  # that the kernel checks for us; we check all


def _destroy(
    addresses: Sequence[str], marks: Sequence[int], mask: int, spared: Sequence[str]
) -> int:
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        listeners = _listeners(netlink)
        anywhere = sorted(port for port, source in listeners if not any(source))[:_PORTS_MAX]
        code = _assemble(
            [_source(address) for address in addresses] + [_marked(mark, mask) for mark in marks],
            [_port(port) for port in anywhere] + [_destination(prefix) for prefix in spared],
        )
        found = []
        for family in _FAMILIES:
            for message in _dump(netlink, family, "connected", attribute(1, code)):
                port, source = _end(message)
                if listeners.isdisjoint(((port, source), (port, bytes(16)))):
                    found.append(_REQUEST.pack(family, socket.IPPROTO_TCP, 0, -1, message[_ID]))
        return netlink.change_many(_DESTROY, found)


def _dump(netlink: Netlink, family: int, states: str, code: bytes = b"") -> list[bytes]:
    query = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _STATES[states], bytes(48))
    return netlink.dump(_BY_FAMILY, query + code)


def _listeners(netlink: Netlink) -> set[tuple[int, bytes]]:
    return {_end(message) for family in _FAMILIES for message in _dump(netlink, family, "listen")}


def _end(message: bytes) -> tuple[int, bytes]:
    """A socket's local port and address; IPv4's in the form that both kinds of socket share."""
    source = message[_SOURCE]
    if message[0] == socket.AF_INET and any(source):
        source = _MAPPED + source[:4]
    return int.from_bytes(message[_PORT], "big"), source


_MAPPED = bytes(10) + b"\xff\xff"


# --- the filter ------------------------------------------------------------------------------
# Each instruction says how far to go on if it holds (yes) and if not (no); who arrives exactly at
# the end is in, who jumps four bytes beyond is out.

_OPERATION = struct.Struct("=BBH")
_JUMP, _SOURCE_COND, _DESTINATION_COND, _MARK_COND = 1, 7, 8, 10
_HOST = struct.Struct("=BBxxi")  # struct inet_diag_hostcond
_ANY_PORT = -1

_Condition = tuple[int, bytes]  # what is compared, and with what


def _source(address: str) -> _Condition:
    return _SOURCE_COND, _host(address)


def _destination(prefix: str) -> _Condition:
    return _DESTINATION_COND, _host(prefix)


def _port(port: int) -> _Condition:
    return _SOURCE_COND, _HOST.pack(socket.AF_UNSPEC, 0, port)


def _marked(mark: int, mask: int) -> _Condition:
    return _MARK_COND, struct.pack("=II", mark, mask)


def _host(prefix: str) -> bytes:
    """IPv4 conditions hold for IPv6 sockets with mapped addresses as well."""
    address, _, length = prefix.partition("/")
    raw = packed(address)
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return _HOST.pack(family, int(length or len(raw) * 8), _ANY_PORT) + raw


def _assemble(wanted: Sequence[_Condition], unwanted: Sequence[_Condition]) -> bytes:
    """The program that takes what meets any of `wanted` and none of `unwanted`."""
    refusals = [4 + len(operand) + 4 for _, operand in unwanted]
    tail = sum(refusals)
    return b"".join((*_any(wanted, tail), *_none(unwanted, tail)))


def _any(conditions: Sequence[_Condition], tail: int) -> Iterator[bytes]:
    """Go on to the tail as soon as one holds, else out."""
    left = sum(8 + len(operand) for _, operand in conditions) - 4  # the last needs no jump
    for code, operand in conditions[:-1]:
        size = 4 + len(operand)
        left -= size + 4
        yield _OPERATION.pack(code, size, size + 4) + operand
        yield _OPERATION.pack(_JUMP, 4, 4 + left)
    code, operand = conditions[-1]
    size = 4 + len(operand)
    yield _OPERATION.pack(code, size, size + tail + 4) + operand


def _none(conditions: Sequence[_Condition], left: int) -> Iterator[bytes]:
    """Out as soon as one holds."""
    for code, operand in conditions:
        size = 4 + len(operand)
        left -= size + 4
        yield _OPERATION.pack(code, size, size + 4) + operand
        yield _OPERATION.pack(_JUMP, 4, 4 + left + 4)

"""A stub resolver: a name's addresses, from one DNS server. Standard library alone.

Rules: one question over UDP, no second try. The order of an answer is kept.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from ipaddress import ip_address

KINDS = {4: 1, 6: 28}  # A and AAAA, by family (RFC 1035, RFC 3596)
_IN = 1
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")  # type, class, TTL, length
_POINTER = 0xC0
_BUFFER = 4096


async def resolve(server: str, name: str, kind: int) -> list[str]:
    """Ask from within an event loop; for how long is the caller's to say."""
    loop = asyncio.get_running_loop()
    with _socket(server) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, render_query(int.from_bytes(os.urandom(2)), name, kind))
        return parse_answer(await loop.sock_recv(sock, _BUFFER))


def resolve_both(server: str, name: str, timeout_s: float = 1.0, port: int = 53) -> list[str]:
    """A name's addresses in both families; none where the server says nothing."""
    found = []
    with _socket(server, port) as sock:
        sock.settimeout(timeout_s)
        for family, kind in KINDS.items():
            try:
                sock.send(render_query(family, name, kind))
                answer = sock.recv(_BUFFER)
                while answer[:2] != family.to_bytes(2):  # a late one
                    answer = sock.recv(_BUFFER)
            except OSError:  # nothing in time, or nobody listens
                return []
            found += parse_answer(answer)
    return found


def render_query(number: int, name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    recurse = 0x0100
    return _HEADER.pack(number, recurse, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, _IN)


def parse_answer(message: bytes) -> list[str]:
    """Return the addresses of an answer, in its order."""
    _, _, questions, answers, _, _ = _HEADER.unpack_from(message)
    at = _HEADER.size
    for _ in range(questions):
        at = _skip_name(message, at) + 4
    found = []
    for _ in range(answers):
        at = _skip_name(message, at)
        kind, _, _, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        if kind in KINDS.values():
            found.append(str(ip_address(message[at : at + length])))
        at += length
    return found


def _skip_name(message: bytes, at: int) -> int:
    while (length := message[at]) and length < _POINTER:
        at += length + 1
    return at + (2 if length else 1)


def _socket(server: str, port: int = 53) -> socket.socket:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.connect((server, port))  # to an address: nothing to wait for
    return sock

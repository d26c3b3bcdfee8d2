"""A stub resolver: a name's addresses, from one DNS server.

Rules: one query over UDP, no retry. The order of the answer is kept.
"""

from __future__ import annotations

import asyncio
import os
import socket

from ifdefault.dns import client

TYPES = {4: "A", 6: "AAAA"}  # by family
_BUFFER = 4096


async def resolve(server: str, name: str, kind: str) -> tuple[str, ...]:
    """Query from an event loop; the caller sets the timeout."""
    loop = asyncio.get_running_loop()
    query = client.query(int.from_bytes(os.urandom(2)), name, kind, recurse=True, edns=False)
    with _socket(server) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, query)
        while (answer := client.read_answer(await loop.sock_recv(sock, _BUFFER), query)) is None:
            pass
        return answer.texts


def resolve_both(server: str, name: str, timeout_s: float = 1.0, port: int = 53) -> list[str]:
    """A name's addresses in both families; none if the server doesn't answer."""
    addresses: list[str] = []
    with _socket(server, port) as sock:
        sock.settimeout(timeout_s)
        for family, kind in TYPES.items():
            query = client.query(family, name, kind, recurse=True, edns=False)
            try:
                sock.send(query)
                while (answer := client.read_answer(sock.recv(_BUFFER), query)) is None:
                    pass  # a late answer
            except OSError:  # timeout, or connection refused
                return []
            addresses += answer.texts
    return addresses


def _socket(server: str, port: int = 53) -> socket.socket:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.connect((server, port))  # UDP: returns at once
    return sock

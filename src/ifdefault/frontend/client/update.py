"""Dynamic updates (RFC 2136) of a name's addresses, over TCP, signed if there is a key.

Rules: if a request ends early, its outcome is unknown, but it can't arrive after a later one: the
connection is closed by RST, which discards unsent data. Failures are a `NoReply` that names the
server and its reason.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

from ifdefault.dns import client
from ifdefault.dns.wire import WireError
from ifdefault.frontend.client.no_reply import NoReply
from ifdefault.frontend.client.query import number
from ifdefault.frontend.client.signed import Request
from ifdefault.frontend.probe.outcome import words

WITHIN_S = 5.0
_BY_RST = struct.pack("=ii", 1, 0)  # SO_LINGER


async def send(
    sock: socket.socket,
    address: str,
    port: int,
    key_path: str,
    zone: str,
    name: str,
    ttl: int,
    add: Sequence[str],
    remove: Sequence[str],
) -> None:
    """Add and remove addresses; NoReply unless the server confirms it."""
    plain = client.update(number(), zone, name, ttl, add, remove)
    request = Request(plain, address, key_path)
    try:
        async with asyncio.timeout(WITHIN_S):
            response = await _exchange(sock, address, port, request.message)
        code = client.read_update_code(response, plain)
        if code is None:
            raise NoReply(f"{address}: the response doesn't match the request")
        if code == client.YXRRSET:
            raise NoReply(f"{name} is a CNAME at {address}")
        if code:
            raise request.refusal(code, response)
        request.verify(response)
    except TimeoutError:
        raise NoReply(f"{address}: no answer in {WITHIN_S:g} s") from None
    except OSError as error:
        raise NoReply(f"{address}: {words(error.errno)}") from None
    except (WireError, EOFError) as error:
        raise NoReply(f"{address}: {error}") from None


async def _exchange(sock: socket.socket, address: str, port: int, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BY_RST)
    await loop.sock_connect(sock, (address, port))
    await loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
    size = int.from_bytes(await _read(sock, 2), "big")
    return await _read(sock, size)


async def _read(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        if not (part := await loop.sock_recv(sock, size - len(data))):
            raise EOFError("it closed the connection without a response")
        data += part
    return bytes(data)

"""Dynamic updates (RFC 2136) of a name's addresses, over TCP, signed if there is a key.

Rules: if a request ends early, its outcome is unknown, but it can't arrive after a later one: the
connection is closed by RST, which discards unsent data. The response to a signed request must be
signed. Failures are a `NoReply` that names the server and its reason.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Sequence

from ifdefault.dns import client, tsig
from ifdefault.dns.wire import WireError
from ifdefault.frontend.client import tsig_key_file
from ifdefault.frontend.client.query import NoReply, number
from ifdefault.frontend.probe.outcome import words

WITHIN_S = 5.0
_BY_RST = struct.pack("=ii", 1, 0)  # SO_LINGER
_FAULTS = {tsig.BADSIG: "BADSIG", tsig.BADKEY: "BADKEY", tsig.BADTIME: "BADTIME", 22: "BADTRUNC"}


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
    try:
        key = tsig_key_file.read(key_path) if key_path else None
    except tsig_key_file.BadKey as error:
        raise NoReply(f"this host: {error}") from None
    request = client.update(number(), zone, name, ttl, add, remove)
    signer = tsig.Signer(key) if key else None
    message = signer.sign(request, time.time()) if signer else request
    try:
        async with asyncio.timeout(WITHIN_S):
            response = await _exchange(sock, address, port, message)
        code = client.read_update_code(response, request)
        plain, signature = tsig.split(response)
    except TimeoutError:
        raise NoReply(f"{address}: no answer in {WITHIN_S:g} s") from None
    except OSError as error:
        raise NoReply(f"{address}: {words(error.errno)}") from None
    except (WireError, EOFError) as error:
        raise NoReply(f"{address}: {error}") from None
    if code is None:
        raise NoReply(f"{address}: the response doesn't match the request")
    if code == client.YXRRSET:
        raise NoReply(f"{name} is a CNAME at {address}")
    if code:
        fault = f" ({_fault(signature.error)})" if signature and signature.error else ""
        raise NoReply(f"{address} refuses: {client.code_name(code)}{fault}")
    if key and signer:
        if signature is None:
            raise NoReply(f"{address}: the response isn't signed")
        if wrong := tsig.verify(plain, signature, key, time.time(), signer.mac):
            raise NoReply(f"{address}: invalid signature of the response ({_fault(wrong)})")


def _fault(code: int) -> str:
    return _FAULTS.get(code, f"TSIG error {code}")


async def _exchange(sock: socket.socket, address: str, port: int, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BY_RST)
    await loop.sock_connect(sock, (address, port))
    await loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
    size = int.from_bytes(await _read(sock, 2), "big")
    return await _read(sock, size)


async def _read(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        if not (part := await loop.sock_recv(sock, size - len(data))):
            raise EOFError("it closed the connection without a response")
        data += part
    return data

"""TCP probes: does the target accept or refuse a connection?

Rules: both count as answered, since a refusal by the target proves that the path works.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time

from ifdefault.frontend.probe.outcome import (
    ProbeError,
    ProbeOutcome,
    raise_error,
    us_since,
    want_errors,
    words,
)

_AT_ONCE = struct.pack("=ii", 1, 0)  # SO_LINGER: close by RST


async def connect(sock: socket.socket, address: str, port: int) -> bool:
    """True if the target accepted, False if it refused; ProbeError for any other failure."""
    try:
        # close by RST: two connections a second would keep hundreds of sockets in TIME_WAIT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        want_errors(sock)
        code = sock.connect_ex((address, port))
    except OSError as error:
        raise ProbeError("local", words(error.errno)) from None
    if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
        raise ProbeError("local", words(code))
    if code == errno.EINPROGRESS:
        await _writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise_error(sock, code, address)
    return not code


async def probe(sock: socket.socket, address: str, port: int) -> ProbeOutcome:
    start_ns = time.monotonic_ns()
    accepted = await connect(sock, address, port)
    return ProbeOutcome("answered", us_since(start_ns), "" if accepted else "refused")


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)

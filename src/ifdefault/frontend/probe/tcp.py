"""TCP probes: does the target accept or refuse a connection?

Rules: both count as answered, since a refusal by the target proves that the path works. A gateway
that has lost its provider refuses as well, which doesn't count.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time

from ifdefault.frontend import icmp_errors
from ifdefault.frontend.probe.outcome import ProbeError, ProbeOutcome, us_since, words
from ifdefault.model.health import Verdict

_AT_ONCE = struct.pack("=ii", 1, 0)  # SO_LINGER: close by RST


async def connect(sock: socket.socket, address: str, port: int) -> bool:
    """True if the target accepted, False if it refused; ProbeError for any other failure."""
    try:
        # close by RST: two connections a second would keep hundreds of sockets in TIME_WAIT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        icmp_errors.enable(sock)
        code = sock.connect_ex((address, port))
    except OSError as error:
        raise ProbeError("local", words(error.errno)) from None
    if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
        raise ProbeError("local", words(code))
    if code == errno.EINPROGRESS:
        await _writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        _raise_error(sock, code, address)
    return not code


def _raise_error(sock: socket.socket, code: int, target: str) -> None:
    """Raise a network error as ProbeError; return if the target itself refused."""
    sender = next((error.sender for error in icmp_errors.read(sock)), "")
    if sender == target or (not sender and code == errno.ECONNREFUSED):
        return
    # ECONNABORTED: this host killed the connection, as it does on dead uplinks
    # (kernel.kill_connections)
    verdict: Verdict = "local" if code == errno.ECONNABORTED else "lost"
    raise ProbeError(verdict, words(code) + (f" (from {sender})" if sender else ""))


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

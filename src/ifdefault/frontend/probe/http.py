"""HTTP(S) probes: does a server answer a GET with the expected status?

Rules: a probe reads only the status line, within 8 KiB, and follows no redirects. A server that
answers something else, has an invalid certificate, refuses or closes the connection is "wrong",
since a captive portal does the same. Certificates are verified against the system's CAs. What a
server sends is limited, interim responses and TLS records included, and keeps no other probe
waiting.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from functools import cache
from typing import Any, TypeVar

from ifdefault import __version__
from ifdefault.frontend.probe import tcp
from ifdefault.frontend.probe.outcome import ProbeError, ProbeOutcome, us_since, words
from ifdefault.model.config import DEFAULT_PORTS

T = TypeVar("T")

MOST_BYTES = 8192
_MOST_RECEIVED = 1 << 18  # on a connection; OpenSSL accepts certificates of 100 kB
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[0-9] 1[0-9]{2}.*?\r?\n\r?\n", re.DOTALL)  # 100, 103: RFC 8297


async def probe(
    sock: socket.socket,
    address: str,
    port: int,
    host: str,
    path: str,
    statuses: Collection[int],
    *,
    secure: bool,
) -> ProbeOutcome:
    start_ns = time.monotonic_ns()
    status = await get(sock, address, port, host, path, _status, secure=secure)
    if status not in statuses if statuses else status >= 400:
        expected = " or ".join(map(str, sorted(statuses)[:5])) or "one below 400"
        raise ProbeError("wrong", f"status {status}, expected {expected}")
    return ProbeOutcome("answered", us_since(start_ns), f"status {status}")


async def get(
    sock: socket.socket,
    address: str,
    port: int,
    host: str,
    path: str,
    read: Callable[[Plain], Awaitable[T]],
    *,
    secure: bool,
    version: str = "1.1",
) -> T:
    """Send a GET, and return what `read` makes of the response; ProbeError for any failure."""
    if not await tcp.connect(sock, address, port):
        raise ProbeError("wrong", "refused")
    try:
        stream = await _tls(sock, host) if secure else Plain(sock)
        await stream.send(_request(host, port, path, version, secure=secure))
        return await read(stream)
    except ssl.SSLCertVerificationError as error:
        raise ProbeError("wrong", f"certificate: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise ProbeError("wrong", f"TLS: {error.reason or error}") from None
    except ConnectionError as error:
        raise ProbeError("wrong", words(error.errno)) from None
    except OSError as error:
        raise ProbeError("lost", words(error.errno)) from None


def _request(host: str, port: int, path: str, version: str, *, secure: bool) -> bytes:
    name = f"[{host}]" if ":" in host else host
    name += f":{port}" if port != DEFAULT_PORTS["https" if secure else "http"] else ""
    return (
        f"GET {path} HTTP/{version}\r\nHost: {name}\r\nUser-Agent: ifdefault/{__version__}\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


async def _status(stream: Plain) -> int:
    """The status of the final response."""
    received = b""
    while len(received) < MOST_BYTES:
        data = await stream.receive()
        received += data
        while interim := _INTERIM.match(received):
            received = received[interim.end() :]
        if (status := _STATUS.match(received)) and status[1][0] != b"1"[0]:
            return int(status[1])
        if not data:
            how = "closed early" if received else "closed without a response"
            raise ProbeError("wrong", f"connection {how}")
        if not received.startswith(b"HTTP/1."[: len(received)]):
            raise ProbeError("wrong", "not HTTP")
    raise ProbeError("wrong", f"no status in {MOST_BYTES} bytes")


class Plain:
    """A plain TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._received = 0

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self) -> bytes:
        if self._received > MOST_BYTES:
            await asyncio.sleep(0)  # it may send faster than this can be read
        data = await self._loop.sock_recv(self._sock, MOST_BYTES)
        self._received += len(data)
        if self._received > _MOST_RECEIVED:
            raise ProbeError("wrong", f"more than {_MOST_RECEIVED >> 10} KiB")
        return data


class _Tls(Plain):
    """A TLS connection (ssl, "Memory BIO support")."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(sock)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        # as bytes: a str would need the IDNA codec, which may not be readable any more
        self._tls = _context().wrap_bio(self._in, self._out, server_hostname=name.encode())

    async def handshake(self) -> None:
        await self._until_done(self._tls.do_handshake)

    async def send(self, data: bytes) -> None:
        await self._until_done(self._tls.write, data)

    async def receive(self) -> bytes:
        try:
            return bytes(await self._until_done(self._tls.read, MOST_BYTES))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _until_done(self, step: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                result = step(*arguments)
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await super().receive():
                    self._in.write(data)
                else:
                    self._in.write_eof()
                continue
            await self._flush()
            return result

    async def _flush(self) -> None:
        if data := self._out.read():
            await super().send(data)


async def _tls(sock: socket.socket, name: str) -> Plain:
    stream = _Tls(sock, name)
    await stream.handshake()
    return stream


@cache
def _context() -> ssl.SSLContext:
    """Created when first needed: the CA certificates take some megabytes."""
    context = ssl.create_default_context()
    # a default since Python 3.13, which refuses certificates that browsers and curl accept
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context

"""One attempt of each kind of traffic: KINDS names them.

Rules: an attempt returns after the correct answer, raises Wrong after another one, and OSError for
an error; the caller sets the time limit. Each attempt is a new flow. A refusal is the correct
answer of a closed port.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import closing

from ifdefault.lab import ports

Attempt = Callable[[str, str], Awaitable[None]]  # (target, source or "")

_ECHO = {4: (8, 0), 6: (128, 129)}  # request, reply (RFC 792, RFC 4443)
_HEADER_V4_BYTES = 20
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python has no name for it
_LINGER_NONE = struct.pack("ii", 1, 0)


class Wrong(Exception):
    """The answer isn't the expected one."""


async def try_tcp(target: str, source: str) -> None:
    """Connect, and send a few bytes that are echoed."""
    sock = _socket(socket.SOCK_STREAM, target, source)
    with closing(sock):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (target, ports.TCP_ECHO))
        nonce = os.urandom(16)
        await loop.sock_sendall(sock, nonce)
        if await loop.sock_recv(sock, 64) != nonce:
            raise Wrong
        # otherwise thousands of connections leave as many ports in TIME_WAIT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)


async def try_http(target: str, source: str) -> None:
    """One request; the lab's web servers answer with their own address."""
    answer, _ = await _get("/", target, source)
    if target not in answer:
        raise Wrong


async def try_you(target: str, source: str) -> None:
    """One request; the lab's nginx answers with the client's address."""
    answer, own = await _get("/you", target, source)
    if own != answer.split()[-1]:
        raise Wrong


async def _get(path: str, target: str, source: str) -> tuple[str, str]:
    """The answer to a request, and our own address; Wrong if the status isn't 200."""
    sock = _socket(socket.SOCK_STREAM, target, source)
    with closing(sock):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (target, ports.HTTP))
        request = f"GET {path} HTTP/1.1\r\nHost: www\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(sock, request.encode())
        answer = b""
        while chunk := await loop.sock_recv(sock, 4096):
            answer += chunk
        if b" 200 " not in answer:
            raise Wrong
        return answer.decode(), sock.getsockname()[0]


async def try_rst(target: str, source: str) -> None:
    """Connect to a closed port: a reset is the answer."""
    sock = _socket(socket.SOCK_STREAM, target, source)
    with closing(sock):
        try:
            await asyncio.get_running_loop().sock_connect(sock, (target, ports.CLOSED))
        except ConnectionRefusedError:
            return
    raise Wrong


def try_udp(port: int) -> Attempt:
    """A datagram that is echoed; the socket isn't connected, so it also gets a wrong source."""

    async def attempt(target: str, source: str) -> None:
        sock = _socket(socket.SOCK_DGRAM, target, source)
        with closing(sock):
            loop = asyncio.get_running_loop()
            nonce = os.urandom(16)
            await loop.sock_sendto(sock, nonce, (target, port))
            data, peer = await loop.sock_recvfrom(sock, 64)
            if data != nonce or peer[:2] != (target, port):
                raise Wrong

    return attempt


async def try_unreachable(target: str, source: str) -> None:
    """A datagram to a closed port: "port unreachable" is the answer."""
    sock = _socket(socket.SOCK_DGRAM, target, source)
    with closing(sock):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (target, ports.CLOSED))
        await loop.sock_sendall(sock, b"anybody?")
        try:
            await loop.sock_recv(sock, 64)
        except ConnectionRefusedError:
            return
    raise Wrong


async def try_icmp(target: str, source: str) -> None:
    """An echo request from a raw socket, which needs root in the namespace."""
    version = 6 if ":" in target else 4
    request, reply = _ECHO[version]
    protocol = socket.IPPROTO_ICMPV6 if version == 6 else socket.IPPROTO_ICMP
    sock = _socket(socket.SOCK_RAW, target, source, protocol)
    with closing(sock):
        loop = asyncio.get_running_loop()
        nonce = os.urandom(16)
        # the kernel fills in ICMPv6's checksum (RFC 3542, 3.1)
        message = struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, 1) + nonce
        if version == 4:
            message = message[:2] + checksum(message).to_bytes(2) + message[4:]
        await loop.sock_sendto(sock, message, (target, 0))
        while True:  # a raw socket receives all replies
            data, peer = await loop.sock_recvfrom(sock, 2048)
            data = data[_HEADER_V4_BYTES:] if version == 4 else data
            if data[0] == reply and data.endswith(nonce):
                break
        if peer[0] != target:
            raise Wrong


async def try_quic(target: str, source: str) -> None:
    """One HTTP/3 request."""
    from ifdefault.lab.http3 import get

    if await get(target, ports.QUIC, source) != 200:
        raise Wrong


KINDS: dict[str, Attempt] = {
    "tcp": try_tcp,
    "http": try_http,
    "you": try_you,
    "quic": try_quic,
    "udp-bound": try_udp(ports.UDP_BOUND),
    "udp-pktinfo": try_udp(ports.UDP_PKTINFO),
    "udp-wildcard": try_udp(ports.UDP_WILDCARD),
    "udp-dual": try_udp(ports.UDP_DUAL),
    "icmp": try_icmp,
    "rst": try_rst,
    "unreachable": try_unreachable,
}


def checksum(message: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _socket(kind: int, target: str, source: str, protocol: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        if source:
            if kind == socket.SOCK_STREAM:
                # the kernel picks the port at connect(), so that more flows fit
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
    except OSError:
        sock.close()
        raise
    return sock

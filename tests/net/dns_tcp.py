"""A DNS client over TCP, in the namespace of its caller."""

from __future__ import annotations

import asyncio
import socket
import struct

import dns.message

from ifdefault.lab.waiting import PATIENCE_S
from tests.net.dns_cases import ZONE


def query(name: str = ZONE, kind: str = "A") -> bytes:
    message = dns.message.make_query(name, kind, use_edns=False).to_wire()
    return struct.pack("!H", len(message)) + message


def connect(source: str, target: str) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(PATIENCE_S)
    sock.bind((source, 0))
    sock.connect((target, 53))
    return sock


def receive(sock: socket.socket) -> dns.message.Message:
    (size,) = struct.unpack("!H", _exactly(sock, 2))
    return dns.message.from_wire(_exactly(sock, size))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, "the server closed the connection"
        data += part
    return data


def ask_by_many(target: str, count: int, waiting: int) -> int:
    """Open that many connections, each for a query, and keep them open; at most `waiting` of them
    wait for their answer. Return how many queries were answered."""
    turn = asyncio.Semaphore(waiting)
    over = asyncio.Event()

    async def ask(number: int) -> bool:
        async with turn:
            reader, writer = await asyncio.open_connection(target, 53)
            try:
                writer.write(query(f"n{number}.wild.{ZONE}"))
                size = int.from_bytes(await reader.readexactly(2), "big")
                message = dns.message.from_wire(await reader.readexactly(size))
            except (OSError, EOFError):
                return False
            finally:
                if number == count - 1:
                    over.set()
        await over.wait()
        writer.close()
        return bool(message.answer)

    async def main() -> int:
        async with asyncio.timeout(PATIENCE_S):
            return sum(await asyncio.gather(*map(ask, range(count))))

    return asyncio.run(main())


def ended(sock: socket.socket) -> bool:
    """Whether the server has closed a connection, or aborted it."""
    sock.setblocking(False)
    try:
        while data := sock.recv(65536):
            assert data
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True

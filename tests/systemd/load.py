"""Steady TCP traffic from a node, of which every byte is counted: connections that stay, and new
ones.

Rules: a connection that stays sends a block again and again, and expects it back; a new one is a
request to a web server that answers with its own address. What fails isn't tried again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Coroutine, Sequence
from itertools import cycle
from typing import Any

from ifdefault.lab import attempts, ports
from ifdefault.lab.node import Node

_BLOCK_BYTES = 1000
_EVERY_S = 0.25  # a block of a connection that stays
_PATIENCE_S = 10.0


class TcpLoad:
    """From `start` to `stop`."""

    def __init__(
        self, node: Node, addresses: Sequence[str], *, connections: int, rate: float
    ) -> None:
        """`connections` stay; `rate` new ones a second."""
        self.blocks = self.requests = 0  # that came back whole
        self.failed: list[str] = []
        self._node, self._addresses = node, addresses
        self._connections, self._rate = connections, rate
        self._stop, self._started = threading.Event(), threading.Event()
        # a daemon: if not all connections open, it waits for ever
        self._thread = threading.Thread(target=lambda: node.python(self._run), daemon=True)

    def start(self) -> None:
        """Return when all connections that stay are open."""
        self._thread.start()
        assert self._started.wait(_PATIENCE_S), self.failed

    def stop(self) -> None:
        """Return when each connection has got all of its bytes back, or has failed."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._load())

    async def _load(self) -> None:
        addresses = cycle(self._addresses)
        are_open = asyncio.Barrier(self._connections + 1)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._connections):
                tasks.create_task(self._count(self._stay(next(addresses), are_open)))
            await are_open.wait()
            self._started.set()
            start_s, number = time.monotonic(), 0
            while not self._stop.is_set():
                tasks.create_task(self._count(self._request(next(addresses))))
                number += 1
                await asyncio.sleep(start_s + number / self._rate - time.monotonic())

    async def _count(self, work: Coroutine[Any, Any, None]) -> None:
        start_s = time.monotonic()
        try:
            await work
        except (OSError, TimeoutError, attempts.Wrong) as error:
            took_s = time.monotonic() - start_s
            self.failed.append(f"{type(error).__name__} {error} after {took_s:.1f} s")

    async def _request(self, address: str) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            await attempts.try_http(address, "")
        self.requests += 1

    async def _stay(self, address: str, are_open: asyncio.Barrier) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            await loop.sock_connect(sock, (address, ports.TCP_ECHO))
            await are_open.wait()
            while not self._stop.is_set():
                block = os.urandom(_BLOCK_BYTES)
                async with asyncio.timeout(_PATIENCE_S):
                    await loop.sock_sendall(sock, block)
                    back = b""
                    while len(back) < len(block):
                        chunk = await loop.sock_recv(sock, _BLOCK_BYTES)
                        if not chunk:
                            raise attempts.Wrong("it was closed")
                        back += chunk
                if back != block:
                    raise attempts.Wrong("other bytes came back")
                self.blocks += 1
                await asyncio.sleep(_EVERY_S)

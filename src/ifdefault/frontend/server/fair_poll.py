"""Many sockets served in turns of bounded length, so that the rest of the loop isn't kept waiting.

Rules: the loop sees one descriptor, an epoll of ours. Each turn serves ready sockets one after
another until its time is over; the kernel hands out those that are ready in rotation, so that all
get theirs. What is called must be short, and must not raise.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable

READ, WRITE, IDLE = select.EPOLLIN, select.EPOLLOUT, 0


class Turns:
    """On the running loop, `turn_s` at a time. `change` to WRITE has a socket called again as soon
    as it may write."""

    def __init__(self, turn_s: float) -> None:
        self._turn_s = turn_s
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._turn)

    def add(self, sock: socket.socket, call: Callable[[], None]) -> None:
        self._calls[sock.fileno()] = call
        self._epoll.register(sock, READ)

    def change(self, sock: socket.socket, events: int) -> None:
        self._epoll.modify(sock, events)

    def remove(self, sock: socket.socket) -> None:
        """Before it is closed."""
        if self._calls.pop(sock.fileno(), None):
            self._epoll.unregister(sock)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _turn(self) -> None:
        end_s = time.monotonic() + self._turn_s
        while time.monotonic() < end_s:
            # one at a time: of several those that the time isn't enough for would be the same ones
            ready = self._epoll.poll(0, 1)
            if not ready:
                return
            self._calls[ready[0][0]]()

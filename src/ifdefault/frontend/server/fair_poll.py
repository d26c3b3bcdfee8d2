"""Serves many sockets in time slices, so that other callbacks of the loop aren't delayed.

Rules: the loop polls one descriptor, our own epoll. Each slice serves ready sockets one after
another until its time is up; epoll returns ready sockets in rotation, so that all are served.
Callbacks must be short, and must not raise.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable

READ, WRITE, IDLE = select.EPOLLIN, select.EPOLLOUT, 0


class FairPoll:
    """On the running loop, `turn_s` at a time. `change` to WRITE: the callback is called when the
    socket is writable."""

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
            # one at a time: if several were fetched, those left over would always be the same
            ready = self._epoll.poll(0, 1)
            if not ready:
                return
            self._calls[ready[0][0]]()

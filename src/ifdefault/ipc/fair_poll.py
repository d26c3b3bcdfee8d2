"""Serves many sockets in time slices, so that other callbacks of the loop aren't delayed.

Rules: the loop polls one descriptor, our own epoll. Each slice serves ready sockets one after
another until its time is up; epoll returns ready sockets in rotation, so that all are served. With
a share of the loop's time, the descriptor isn't polled after a slice until the time used is that
share again: nothing that arrives meanwhile costs anything. Callbacks must be short, and must not
raise.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable

READ, WRITE, IDLE = select.EPOLLIN, select.EPOLLOUT, 0


class FairPoll:
    """On the running loop, `turn_s` at a time, in `share` of its time. `change` to WRITE: the
    callback is called when the socket is writable."""

    def __init__(self, turn_s: float, share: float = 1.0) -> None:
        self._turn_s, self._share = turn_s, share
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._paid_s = 0.0  # by when the time used so far is our share
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

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
        if self._pause:
            self._pause.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def pause(self, seconds: float) -> None:
        """Serve nothing for this long."""
        if self._pause is None and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def _turn(self) -> None:
        start_s = now = time.monotonic()
        while now < start_s + self._turn_s:
            # one at a time: if several were fetched, those left over would always be the same
            ready = self._epoll.poll(0, 1)
            if not ready:
                break
            self._calls[ready[0][0]]()
            now = time.monotonic()
        if self._share < 1:
            self._pay(start_s, now)

    def _pay(self, start_s: float, now: float) -> None:
        """Pause if what was used is ahead of the share by more than a slice."""
        self._paid_s = max(self._paid_s, start_s) + (now - start_s) / self._share
        if self._paid_s > now + self._turn_s / self._share:
            self.pause(self._paid_s - now)

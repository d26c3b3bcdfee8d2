"""Requests to servers that the frontend sends for the engine, and their replies.

Rules: each request has its own socket, opened here, and leaves by one path (`Way`). Callers are
tasks, so the engine never blocks. A timeout, or the end of the frontend, is an error reply like any
other, which says that it is this host's fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from ifdefault.ipc.messages import Asked, Fetch, Message, Query, Reply, Update
from ifdefault.kernel import open_probe_sockets
from ifdefault.model.dns import Endpoint
from ifdefault.model.errors import reason
from ifdefault.model.health import Way

UPDATE_S, QUERY_S, FETCH_S = 5.0, 2.0, 10.0
_GRACE_S = 1.0  # the frontend has the same timeouts; this is for one that hangs

Post = Callable[[Message, tuple[int, ...]], None]


class Requests:
    def __init__(self, post: Post) -> None:
        self._post = post
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    async def update(
        self,
        way: Way,
        server: Endpoint,
        zone: str,
        name: str,
        ttl: int,
        *,
        add: tuple[str, ...],
        remove: tuple[str, ...],
    ) -> Reply:
        """Change a name's addresses at a server (RFC 2136)."""
        number = next(self._numbers)
        request = Update(
            number, server.address, server.port, server.key, zone, name, ttl, add, remove
        )
        return await self._exchange(way, request, UPDATE_S)

    async def query(
        self, way: Way, server: Endpoint, name: str, wanted: Asked, *, recurse: bool = False
    ) -> Reply:
        """Query a server, with its TSIG key if it has one."""
        number = next(self._numbers)
        request = Query(number, server.address, server.port, server.key, name, wanted, recurse)
        return await self._exchange(way, request, QUERY_S)

    async def fetch(
        self, way: Way, address: str, port: int, host: str, path: str, *, secure: bool
    ) -> Reply:
        """GET a text from a web server at an address."""
        request = Fetch(next(self._numbers), address, port, host, path, secure)
        return await self._exchange(way, request, FETCH_S)

    def receive(self, reply: Reply) -> None:
        """A reply from the frontend; its request may have been cancelled."""
        future = self._waiting.pop(reply.number, None)
        if future is not None and not future.done():
            future.set_result(reply)

    def fail_all(self) -> None:
        """The frontend ended, and all its requests with it."""
        for number in list(self._waiting):
            self.receive(Reply(number, "this host: the frontend ended meanwhile"))

    async def _exchange(self, way: Way, request: Update | Query | Fetch, timeout_s: float) -> Reply:
        open_socket = (
            open_probe_sockets.datagram_socket
            if isinstance(request, Query)
            else open_probe_sockets.stream_socket
        )
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request.number] = future
        try:
            with open_socket(way.family, way.address, way.dev, way.mark) as sock:
                self._post(request, (sock.fileno(),))
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await future
        except TimeoutError:
            return Reply(request.number, "this host: the frontend did not answer")
        except OSError as error:
            return Reply(request.number, f"this host: {reason(error)}")
        finally:
            self._waiting.pop(request.number, None)

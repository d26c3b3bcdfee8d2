"""Questions that the frontend puts to servers for us, each over a socket of its own, and their
replies.

Rules: the engine never waits: whoever asks is a task. A question goes out by one way, which is an
uplink in one family; what nobody replies to in time, or what the frontend took with it when it
ended, is an error like any other, and says whose.
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
_GRACE_S = 1.0  # the frontend knows these times, too; this is for one that says nothing

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
        order = Update(
            number, server.address, server.port, server.key, zone, name, ttl, add, remove
        )
        return await self._exchange(way, order, UPDATE_S)

    async def query(
        self, way: Way, server: Endpoint, name: str, wanted: Asked, *, recurse: bool = False
    ) -> Reply:
        number = next(self._numbers)
        order = Query(number, server.address, server.port, name, wanted, recurse)
        return await self._exchange(way, order, QUERY_S)

    async def fetch(
        self, way: Way, address: str, port: int, host: str, path: str, *, secure: bool
    ) -> Reply:
        """Ask a web server at an address for a text."""
        order = Fetch(next(self._numbers), address, port, host, path, secure)
        return await self._exchange(way, order, FETCH_S)

    def hear(self, reply: Reply) -> None:
        """What came of one; nobody may wait for it any more."""
        waiting = self._waiting.pop(reply.number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def forget(self) -> None:
        """The frontend has ended, and all that was asked with it."""
        for number in list(self._waiting):
            self.hear(Reply(number, "this host: the frontend ended meanwhile"))

    async def _exchange(self, way: Way, order: Update | Query | Fetch, within_s: float) -> Reply:
        make = (
            open_probe_sockets.datagram_socket
            if isinstance(order, Query)
            else open_probe_sockets.stream_socket
        )
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[order.number] = waiting
        try:
            with make(way.family, way.address, way.dev, way.mark) as sock:
                self._post(order, (sock.fileno(),))
            async with asyncio.timeout(within_s + _GRACE_S):
                return await waiting
        except TimeoutError:
            return Reply(order.number, "this host: the frontend said nothing")
        except OSError as error:
            return Reply(order.number, f"this host: {reason(error)}")
        finally:
            self._waiting.pop(order.number, None)

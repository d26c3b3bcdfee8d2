"""What the frontend asks of servers for the engine: each request has one Reply.

Rules: each has its own socket, which is closed with it, and an end. Of two UPDATEs of one name the
later is meant: the earlier is given up before that is begun, so that it can't be done after it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from ifdefault.frontend.client import http_get, query, update
from ifdefault.frontend.client.query import NoReply
from ifdefault.ipc.messages import MAX_TEXTS, Fetch, Query, Reply, Update, printable

_MOST = 512  # at once
ClientRequest = Update | Query | Fetch
Task = asyncio.Task[Reply]


class RequestRunner:
    def __init__(self, tell: Callable[[Reply], None]) -> None:
        self._tell = tell
        self._tasks: set[Task] = set()
        self._updates: dict[tuple[str, str], Task] = {}  # the last of each zone and name

    def take(self, request: ClientRequest, sock: socket.socket | None) -> None:
        if sock is None or len(self._tasks) >= _MOST:
            if sock is not None:
                sock.close()
            self._tell(Reply(request.number, "this host: too much is asked at once"))
            return
        before = None
        if isinstance(request, Update) and (
            before := self._updates.get((request.zone, request.name))
        ):
            before.cancel()
        task = asyncio.create_task(_run(request, sock, before))
        task.add_done_callback(partial(self._done, request, sock))
        self._tasks.add(task)
        if isinstance(request, Update):
            self._updates[request.zone, request.name] = task

    def _done(self, request: ClientRequest, sock: socket.socket, task: Task) -> None:
        sock.close()
        self._tasks.discard(task)
        if isinstance(request, Update) and self._updates.get((request.zone, request.name)) is task:
            del self._updates[request.zone, request.name]
        given_up = Reply(request.number, "this host: given up for a later one")
        self._tell(given_up if task.cancelled() else task.result())


async def _run(request: ClientRequest, sock: socket.socket, before: Task | None) -> Reply:
    """Begin this request when the one before has ended and its socket is closed."""
    if before is not None:
        await asyncio.wait({before})
    try:
        if isinstance(request, Query):
            return await _ask(request, sock)
        if isinstance(request, Fetch):
            return await _fetch(request, sock)
        await _change(request, sock)
    except NoReply as error:
        return Reply(request.number, printable(str(error)))
    return Reply(request.number, "")


async def _ask(it: Query, sock: socket.socket) -> Reply:
    said = await query.ask(sock, it.address, it.port, it.name, it.wanted, recurse=it.recurse)
    texts = tuple(text for text in said.texts if len(text) < 256)
    return Reply(it.number, "", texts[:MAX_TEXTS], said.ttl)


async def _fetch(it: Fetch, sock: socket.socket) -> Reply:
    where = (sock, it.address, it.port, it.host, it.path)
    return Reply(it.number, "", (await http_get.fetch(*where, secure=it.secure),))


async def _change(it: Update, sock: socket.socket) -> None:
    where = (sock, it.address, it.port, it.key)
    await update.send(*where, it.zone, it.name, it.ttl, it.add, it.remove)

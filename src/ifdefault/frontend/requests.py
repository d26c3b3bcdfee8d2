"""Sends the engine's requests to servers. Each request gets one Reply.

Rules: each request has its own socket, which is closed at its end, and a timeout. If two UPDATEs of
one name overlap, the earlier one is cancelled before the later one begins, so that it can't take
effect after it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from ifdefault.frontend.client import http_get, query, update
from ifdefault.frontend.client.no_reply import NoReply
from ifdefault.ipc import log, tasks
from ifdefault.ipc.messages import MAX_TEXTS, Fetch, Query, Reply, Update, printable
from ifdefault.model.errors import internal

_MOST = 512  # requests at once
ClientRequest = Update | Query | Fetch
Task = asyncio.Task[Reply]


class RequestRunner:
    def __init__(self, send: Callable[[Reply], None]) -> None:
        self._send = send
        self._tasks: set[Task] = set()
        self._updates: dict[tuple[str, str], Task] = {}  # the latest of each zone and name

    def start(self, request: ClientRequest, sock: socket.socket | None) -> None:
        if sock is None or len(self._tasks) >= _MOST:
            if sock is not None:
                sock.close()
            self._send(Reply(request.number, "this host: too many requests at once"))
            return
        before = None
        if isinstance(request, Update) and (
            before := self._updates.get((request.zone, request.name))
        ):
            before.cancel()
        task = tasks.start(_run(request, sock, before))
        task.add_done_callback(partial(self._done, request, sock))
        self._tasks.add(task)
        if isinstance(request, Update):
            self._updates[request.zone, request.name] = task

    def _done(self, request: ClientRequest, sock: socket.socket, task: Task) -> None:
        sock.close()
        self._tasks.discard(task)
        if isinstance(request, Update) and self._updates.get((request.zone, request.name)) is task:
            del self._updates[request.zone, request.name]
        cancelled = Reply(request.number, "this host: superseded by a later update")
        self._send(cancelled if task.cancelled() else task.result())


async def _run(request: ClientRequest, sock: socket.socket, before: Task | None) -> Reply:
    """Run a request, after the one before has ended and its socket is closed."""
    if before is not None:
        await asyncio.wait({before})
    try:
        if isinstance(request, Query):
            return await _query(request, sock)
        if isinstance(request, Fetch):
            return await _fetch(request, sock)
        await _update(request, sock)
    except NoReply as error:
        return Reply(request.number, printable(str(error)))
    except Exception as error:
        log.exception(error, type(request).__name__)
        return Reply(request.number, printable(f"this host: {internal(error)}"))
    return Reply(request.number, "")


async def _query(r: Query, sock: socket.socket) -> Reply:
    where = (sock, r.address, r.port)
    answer = await query.ask(*where, r.name, r.wanted, recurse=r.recurse, key_path=r.key)
    return reply(r.number, answer)


def reply(number: int, answer: query.Answer) -> Reply:
    """A server's answer, as much of it as fits a message. A server may be named "" (the root)."""
    texts = tuple(text for text in answer.texts if 0 < len(text) < 256)
    return Reply(number, "", texts[:MAX_TEXTS], answer.ttl)


async def _fetch(r: Fetch, sock: socket.socket) -> Reply:
    where = (sock, r.address, r.port, r.host, r.path)
    return Reply(r.number, "", (await http_get.fetch(*where, secure=r.secure),))


async def _update(r: Update, sock: socket.socket) -> None:
    where = (sock, r.address, r.port, r.key)
    await update.send(*where, r.zone, r.name, r.ttl, r.add, r.remove)

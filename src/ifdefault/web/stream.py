"""The first page's live parts, sent to every browser that shows it (server-sent events).

Rules: each snapshot is rendered once, whatever the number of browsers, and only the parts that have
changed are sent. One that reads too slowly misses some, and then gets all parts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

from aiohttp import web

from ifdefault.web.access import Unwelcome
from ifdefault.web.guard import MOST_STREAMS
from ifdefault.web.live import Live, Snapshot


class _Reader:
    """What one browser is to be sent next."""

    __slots__ = ("_waiter", "message")

    def __init__(self, message: bytes) -> None:
        self.message = message
        self._waiter: asyncio.Future[None] | None = None

    def send(self, message: bytes) -> None:
        self.message = message
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> bytes:
        if not self.message:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message, self.message = self.message, b""
        return message


class Streams:
    """`render` makes the parts of a snapshot, by their ids."""

    def __init__(self, render: Callable[[Snapshot], Mapping[str, str]]) -> None:
        self._render = render
        self._parts: Mapping[str, str] = {}  # as all readers have them, or are to be sent them
        self._rendered: tuple[float, int] = 0.0, 0  # the snapshot and its last event
        self._latest: Mapping[str, str] = {}
        self._readers: set[_Reader] = set()

    def tell(self, snapshot: Snapshot) -> None:
        parts = self._render_once(snapshot)
        changed = {id_: html for id_, html in parts.items() if self._parts.get(id_) != html}
        self._parts = parts
        if not changed:
            return
        message, all_parts = _message(changed), b""
        for reader in self._readers:
            if reader.message:  # it hasn't taken the one before
                all_parts = all_parts or _message(parts)
                reader.message = all_parts
            else:
                reader.send(message)

    def _render_once(self, snapshot: Snapshot) -> Mapping[str, str]:
        which = snapshot.at, snapshot.events[-1].serial if snapshot.events else -1
        if which != self._rendered:
            self._rendered, self._latest = which, self._render(snapshot)
        return self._latest

    async def serve(self, request: web.Request, live: Live) -> web.StreamResponse:
        if len(self._readers) >= MOST_STREAMS:
            raise Unwelcome(503, "an event stream: too many", {"Retry-After": "30"})
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # nginx passes it on at once
            }
        )
        await response.prepare(request)
        response.headers.clear()  # they have been sent: of a thousand streams they take a megabyte
        parts = self._render_once(await live.snapshot())  # the page that asks may be older
        if not self._readers:
            self._parts = parts
        reader = _Reader(_message(parts))
        self._readers.add(reader)
        live.watch()
        try:
            while True:  # the time of the snapshot is sent each second: proxies keep the connection
                await response.write(await reader.next())
        finally:
            self._readers.discard(reader)
            live.unwatch()


def _message(parts: Mapping[str, str]) -> bytes:
    return f"data: {json.dumps(parts)}\n\n".encode()

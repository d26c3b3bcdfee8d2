"""The HTTP server: aiohttp, within limits."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import Any

from aiohttp import web, web_response

from ifdefault.ipc import tasks
from ifdefault.ipc.sd_notify import Notifier
from ifdefault.model.errors import HostError
from ifdefault.monitor import metrics
from ifdefault.monitor.status_file import read_status
from ifdefault.web import api, guard, history
from ifdefault.web.access import MOST_BODY, Access, sign
from ifdefault.web.api import Api
from ifdefault.web.control import ControlPages
from ifdefault.web.guard import Guard, Refusals
from ifdefault.web.pages import Pages
from ifdefault.web.site import Site

_IDLE_S = 10.0  # between two requests
_MOST_LINE = 4096
_MOST_FIELDS = 64
_END_S = 2.0  # for answers that are under way, at the end
_TITLES = {
    404: "Not Found",
    401: "A token is needed",
    500: "Internal error",
    503: "Not available",
}
_logger = logging.getLogger("ifdefault")


class _Malformed(logging.Logger):
    """What aiohttp would log of requests that it can't read, with a traceback for each."""

    def __init__(self, refusals: Refusals) -> None:
        super().__init__("ifdefault.web")
        self._refusals = refusals

    def handle(self, record: logging.LogRecord) -> None:
        self._refusals.add("a request: malformed", None)


async def serve(site: Site, sock: socket.socket, notifier: Notifier) -> int:
    """Serve until a signal ends it."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    server = Server(site)
    await server.start(sock)
    text = f"serving at {site.settings.listen}"
    _logger.info("%s", text)
    notifier.ready(text)
    await over.wait()
    notifier.stopping()
    await server.close()
    return 0


class Server:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.guard = Guard(Refusals())
        self._access = Access(self.guard, lambda: site.settings, self._answer_error)
        # what aiohttp answers by itself, to a request that it can't read, names no version either
        web_response.SERVER_SOFTWARE = "ifdefault"  # type: ignore[attr-defined]
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def start(self, sock: socket.socket) -> None:
        """Serve at a socket that listens."""
        app = web.Application(middlewares=[self._access.middleware()], client_max_size=MOST_BODY)
        app.on_response_prepare.append(sign)
        for part in (Pages(self.site), ControlPages(self.site), Api(self.site)):
            app.add_routes(part.routes())
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_Malformed(self.guard.refusals),
            handle_signals=False,
            handler_cancellation=True,  # a stream ends with its client
            keepalive_timeout=_IDLE_S,
            tcp_keepalive=False,
            max_line_size=_MOST_LINE,
            max_field_size=_MOST_LINE,
            max_headers=_MOST_FIELDS,
            shutdown_timeout=_END_S,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        loop = asyncio.get_running_loop()
        factory = guard.factory(self.guard, self._runner.server)
        if sock.family == socket.AF_UNIX:
            self._listening: Any = await loop.create_unix_server(factory, sock=sock)
        else:
            self._listening = await loop.create_server(factory, sock=sock)
        self._tasks = self.site.live.start()

    async def close(self) -> None:
        self._listening.close()
        for transport in [*self.guard.connections]:
            transport.abort()
        await tasks.end(*self._tasks)
        await self._runner.cleanup()

    def _answer_error(self, request: web.Request, status: int, text: str) -> web.Response:
        if request.path.startswith(api.PREFIX):
            return api.problems(status, (text,))
        text = f"{text[:1].upper()}{text[1:]}"
        if request.path == "/metrics":
            return web.Response(text=f"{text}\n", status=status)
        title = _TITLES.get(status, "Refused")
        text = "There is no such page" if text == title else text
        return self.site.renderer.page("message.html", status=status, title=title, text=f"{text}.")

    async def _metrics(self, request: web.Request) -> web.Response:
        kind = metrics.content_type(request.headers.get("Accept", ""))
        snapshot = await self.site.live.snapshot()
        try:
            site, usage = self.site, snapshot.status.usage if snapshot.status else ()
            used = await history.month_budgets(site.state_dir, site.settings.uplinks, usage)
        except HostError:
            used = {}
        budgets = metrics.budgets_now(snapshot.status, used)
        monitor = read_status(self.site.run_dir, snapshot.at)
        data = metrics.render(snapshot.status, snapshot.counters, budgets, kind, monitor)
        return web.Response(body=data, headers={"Content-Type": kind})

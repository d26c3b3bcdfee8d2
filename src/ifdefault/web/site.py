"""What every page and every answer of the API is made from."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from ifdefault.ipc import tasks
from ifdefault.ipc.control.protocol import SetUplink, UplinkChanged
from ifdefault.model.errors import HostError, IfdefaultError
from ifdefault.monitor.status_file import read_status
from ifdefault.web.helper import (
    Explain,
    Explained,
    Files,
    Helper,
    Load,
    Reply,
    Request,
    settings_in,
)
from ifdefault.web.live import Live, Snapshot, said
from ifdefault.web.render import Renderer
from ifdefault.web.settings import Faults, Settings
from ifdefault.web.stream import Streams
from ifdefault.web.view import Overview, overview

CHANGE_S = 120.0  # a thousand operations take seconds
_MOST_WAITING = 8  # for the helper
_MOST_CHANGES = 8  # wrong tokens are refused late, and the connections to the engine are few
_logger = logging.getLogger("ifdefault")


class Busy(HostError):
    """Too many have asked for the same."""


class Site:
    def __init__(
        self, files: Files, helper: Helper, settings: Settings, renderer: Renderer
    ) -> None:
        self.state_dir, self.settings = files.state_dir, settings
        self.run_dir = files.run_dir
        self.warning = ""  # why the last settings that worked are used
        self.renderer = renderer
        self.streams = Streams(self._parts)
        self.live = Live(files.run_dir, self._reload, self.streams.tell)
        self._helper = helper
        self._lock = asyncio.Lock()
        self._waiting = self._changing = 0
        self._loading: asyncio.Task[None] | None = None

    @property
    def uplinks(self) -> tuple[str, ...]:
        return tuple(uplink.name for uplink in self.settings.uplinks)

    def overview(self, snapshot: Snapshot) -> Overview:
        monitor = read_status(self.run_dir, snapshot.at)
        troubles = [f"{t.what}: {t.text}" for t in monitor.troubles] if monitor else []
        return overview(snapshot, self.uplinks, troubles)

    def _parts(self, snapshot: Snapshot) -> dict[str, str]:
        return self.renderer.parts(self.overview(snapshot), self.settings.control)

    # --- the helper -----------------------------------------------------------------------

    async def explain(self, request: Explain) -> Explained | Faults:
        """HostError if too many wait for it already."""
        if self._waiting >= _MOST_WAITING:
            raise Busy("too many wait for an explanation; try again")
        reply = await self._ask_helper(request)
        assert isinstance(reply, Explained | Faults)
        return reply

    async def _ask_helper(self, request: Request) -> Reply:
        self._waiting += 1
        # it goes on when a client gives up: the answer must be read all the same
        exchange = tasks.start(self._exchange(request))
        await asyncio.wait([exchange])
        return exchange.result()

    async def _exchange(self, request: Request) -> Reply:
        try:
            async with self._lock:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(self._helper.sock, self._helper.send(request))
                return self._helper.receive(await loop.sock_recv(self._helper.sock, 1 << 17))
        finally:
            self._waiting -= 1  # also of clients that have given up: the helper works for them

    async def change(self, request: SetUplink) -> UplinkChanged:
        """Have the engine change an uplink, also if the client goes away; HostError."""
        if self._changing >= _MOST_CHANGES:
            raise Busy("too many changes at once; try again")
        self._changing += 1
        task = tasks.start(self._change(request))
        await asyncio.wait([task])
        outcome = task.result()
        if isinstance(outcome, IfdefaultError):
            raise outcome
        return outcome

    async def _change(self, request: SetUplink) -> UplinkChanged | IfdefaultError:
        try:
            return await self.live.ask(request, CHANGE_S)
        except IfdefaultError as error:
            return error
        finally:
            self._changing -= 1
            self.live.forget()

    def _reload(self) -> None:
        """Read the config again; what is invalid is said, and the last settings are kept."""
        if self._loading is None or self._loading.done():
            self._loading = tasks.start(self._load())

    async def _load(self) -> None:
        try:
            settings = settings_in(await self._ask_helper(Load()))
        except IfdefaultError as error:
            self.warning = f"The last settings that worked are used: {said(error)}"
            _logger.warning("the last settings that worked are used: %s", said(error))
            return
        self.warning = ""
        if settings.listen != self.settings.listen:
            self.warning = "web.listen has changed: restart ifdefault-web"
            _logger.warning("%s", self.warning)
            # who may read is for the new address: the old one may be open to more
            settings = replace(self.settings, uplinks=settings.uplinks)
        self.settings = settings

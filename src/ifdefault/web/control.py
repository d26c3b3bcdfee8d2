"""Changing an uplink's state from the page: a question, and its answer.

Rules: nothing is changed without the control token, which is asked for each time, passed on to the
engine and kept nowhere. Without `[web] control_token_file` these pages don't exist.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import quote

from aiohttp import web

from ifdefault.ipc import codec
from ifdefault.ipc.control.client import NotRunning
from ifdefault.ipc.control.protocol import OtherVersion, SetUplink, UplinkChanged
from ifdefault.model import duration
from ifdefault.model.errors import HostError, IfdefaultError
from ifdefault.model.headline import headline
from ifdefault.model.health import LONGEST_DRAIN_S, Forced
from ifdefault.web.access import Refused, form
from ifdefault.web.live import said
from ifdefault.web.site import Busy, Site

_VERB = "{verb:drain|down|up|auto}"
_QUESTIONS = {
    "drain": "Drain {}?",
    "down": "Force {} down?",
    "up": "Force {} up?",
    "auto": "Return {} to automatic?",
}
_MEANINGS = {
    "drain": "It gets no new connections and leaves the DNS; those that it has go on.",
    "down": "It isn't used, whatever its probes report; its outgoing connections are ended.",
    "up": "It is used, whatever its probes report.",
    "auto": "It is used as its probes report.",
}


class ControlPages:
    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[web.AbstractRouteDef]:
        path = f"/uplinks/{{name}}/{_VERB}"
        return [
            web.get(path, self.ask),
            web.post(path, self.change),
        ]

    async def ask(self, request: web.Request) -> web.Response:
        return await self._question(request)

    async def change(self, request: web.Request) -> web.Response:
        name, verb = await self._named(request)
        fields = await form(request)
        token, limit = fields.get("token", ""), fields.get("timeout", "").strip()
        timeout_s = duration.seconds(limit) if limit and verb == "drain" else None
        if limit and verb == "drain" and not (timeout_s and timeout_s <= LONGEST_DRAIN_S):
            return await self._question(
                request, f'"{limit}" is not a time, such as 30m or 2h', limit
            )
        try:
            await set_uplink(self._site, SetUplink(name, cast(Forced, verb), timeout_s, token))
        except Refused as refused:
            return await self._question(request, refused.why, limit, refused.status)
        return web.Response(status=303, headers={"Location": f"/#uplink-{quote(name)}"})

    async def _named(self, request: web.Request) -> tuple[str, str]:
        """The uplink and what to do with it."""
        name, verb = request.match_info["name"], request.match_info["verb"]
        if not self._site.settings.control:
            raise Refused(403, "the page is read-only, without [web] control_token_file")
        if name not in await uplink_names(self._site):
            raise Refused(404, "no such uplink")
        return name, verb

    async def _question(
        self, request: web.Request, error: str = "", limit: str = "", status: int = 200
    ) -> web.Response:
        name, verb = await self._named(request)
        if error and status == 200:
            status = 400
        snapshot = await self._site.live.snapshot()
        return self._site.renderer.page(
            "uplink.html",
            status=status,
            name=name,
            verb=verb,
            question=_QUESTIONS[verb].format(name),
            meaning=_MEANINGS[verb],
            now=headline(snapshot.status)[0] if snapshot.status else snapshot.trouble,
            error=error,
            timeout=limit,
        )


async def uplink_names(site: Site) -> set[str]:
    status = (await site.live.snapshot()).status
    return {*site.uplinks, *(path.uplink for path in (status.health if status else ()))}


async def set_uplink(site: Site, request: SetUplink) -> UplinkChanged:
    """Pass it on to the engine; Refused says why it wasn't done."""
    try:
        codec.from_json(SetUplink, codec.to_json(request))
    except codec.DecodeError as error:
        raise Refused(400, str(error)) from None
    try:
        return await site.change(request)
    except (Busy, NotRunning, OtherVersion) as error:
        raise Refused(503, said(error)) from None
    except HostError as error:
        raise Refused(403, said(error)) from None
    except IfdefaultError as error:
        raise Refused(400, said(error)) from None

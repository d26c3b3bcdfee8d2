"""The API: what `--json` prints, at /api/v1.

Rules: records are encoded by `ipc.codec`, as for the command line, and described by `web.openapi`,
from the same classes. What is wrong is answered by Problems, with a status that says whose fault it
is. A parameter that isn't known is an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from ifdefault.ipc import codec
from ifdefault.ipc.control.protocol import MOST_EVENTS, EventList, SetUplink
from ifdefault.model.errors import HostError, IfdefaultError
from ifdefault.web import history, openapi
from ifdefault.web.access import Refused, body
from ifdefault.web.control import set_uplink, uplink_names
from ifdefault.web.live import said
from ifdefault.web.pages import explain_request
from ifdefault.web.records import Problems, UplinkState
from ifdefault.web.settings import Faults
from ifdefault.web.site import Site

PREFIX = "/api/v1"


class Api:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._document = json.dumps(openapi.document(), indent=1).encode()

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get(f"{PREFIX}/openapi.json", self.document),
            web.get(f"{PREFIX}/status", self.status),
            web.get(f"{PREFIX}/counters", self.counters),
            web.get(f"{PREFIX}/events", self.events),
            web.get(f"{PREFIX}/outages", self.outages),
            web.get(f"{PREFIX}/history", self.history),
            web.get(f"{PREFIX}/explain", self.explain),
            web.post(f"{PREFIX}/uplinks/{{name}}", self.set_uplink),
        ]

    async def document(self, request: web.Request) -> web.Response:
        _parameters(request, ())
        return web.Response(body=self._document, content_type="application/json")

    async def status(self, request: web.Request) -> web.Response:
        _parameters(request, ())
        snapshot = await self._site.live.snapshot()
        if snapshot.status is None:
            raise Refused(503, snapshot.trouble)
        return _json(codec.to_json(snapshot.status))

    async def counters(self, request: web.Request) -> web.Response:
        _parameters(request, ())
        snapshot = await self._site.live.snapshot()
        if snapshot.counters is None:
            raise Refused(503, snapshot.trouble)
        return _json(codec.to_json(snapshot.counters))

    async def events(self, request: web.Request) -> web.Response:
        """The latest `limit` events with a serial greater than `after`."""
        query = _parameters(request, ("after", "limit"))
        after = _whole(query, "after", -1, -1, openapi.SERIALS)
        limit = _whole(query, "limit", 500, 1, MOST_EVENTS)
        snapshot = await self._site.live.snapshot()
        known = snapshot.events
        if not known and snapshot.trouble:
            raise Refused(503, snapshot.trouble)
        last = known[-1].serial if known else -1
        found = tuple(event for event in known if event.serial > after)[-limit:]
        return _json(codec.to_json(EventList(found, last)))

    async def outages(self, request: web.Request) -> web.Response:
        query = _parameters(request, ("since", "until", "uplink"))
        since, until, uplink = self._time(query, 90 * 86400)
        with _readable():
            found = await history.outage_records(self._site.state_dir, since, until, uplink)
        return _json(codec.to_json(found))

    async def history(self, request: web.Request) -> web.Response:
        query = _parameters(request, ("since", "until", "uplink"))
        since, until, uplink = self._time(query, 86400)
        with _readable():
            data = await history.records(self._site.state_dir, since, until, uplink)
        return web.Response(body=data, content_type="application/json")

    def _time(self, query: dict[str, str], by_default_s: int) -> tuple[int, int, str]:
        now = int(time.time())
        until = _whole(query, "until", now, 0, openapi.LATEST)
        since = _whole(query, "since", max(until - by_default_s, 0), 0, openapi.LATEST)
        return since, until, query.get("uplink", "")

    async def explain(self, request: web.Request) -> web.Response:
        names = ("protocol", "source", "target", "iif", "mark", "uid")
        query = _parameters(request, names)
        for name in names[:3]:
            if not query.get(name):
                raise Refused(400, f"{name} is missing")
        try:
            explained = await self._site.explain(
                explain_request({name: query.get(name, "") for name in names})
            )
        except ValueError as error:
            raise Refused(400, str(error)) from None
        except HostError as error:
            raise Refused(503, said(error)) from None
        if isinstance(explained, Faults):
            raise Refused(409, "; ".join(explained.texts))
        return web.Response(text=explained.explanation, content_type="application/json")

    async def set_uplink(self, request: web.Request) -> web.Response:
        _parameters(request, ())
        if request.content_type != "application/json":
            raise Refused(415, "the body's type isn't application/json")
        try:
            wanted = codec.from_json(UplinkState, codec.read(await body(request)))
        except codec.DecodeError as error:
            raise Refused(400, f"the body isn't an UplinkState: {error}") from None
        if not self._site.settings.control:
            raise Refused(403, "the API is read-only, without [web] control_token_file")
        name = request.match_info["name"]
        if name not in await uplink_names(self._site):
            raise Refused(404, "no such uplink")
        change = SetUplink(name, wanted.state, wanted.timeout_s, wanted.token)
        return _json(codec.to_json(await set_uplink(self._site, change)))


class _readable:
    """A history that can't be read is a Refused."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, IfdefaultError):
            raise Refused(503, said(error)) from None


def problems(status: int, texts: Iterable[str]) -> web.Response:
    return _json(codec.to_json(Problems(tuple(texts))), status)


def _json(value: Any, status: int = 200) -> web.Response:
    data = codec.write(value)
    return web.Response(body=data, content_type="application/json", status=status)


def _parameters(request: web.Request, known: tuple[str, ...]) -> dict[str, str]:
    for name in request.query:
        if name not in known:
            raise Refused(400, f"no parameter of this name; known are {', '.join(known) or 'none'}")
        if len(request.query.getall(name)) > 1:
            raise Refused(400, f"{name} is given twice")
    return dict(request.query)


def _whole(query: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    # int() takes "1_000" and digits of other scripts, too
    is_number = text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 25
    if is_number and low <= int(text) <= high:
        return int(text)
    raise Refused(400, f"{name} is not a number from {low} to {high}")

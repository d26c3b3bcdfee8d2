"""The pages: overview, events, explain, outages."""

from __future__ import annotations

import json
import time
from typing import Any, get_args

from aiohttp import web

from ifdefault.ipc import codec
from ifdefault.model.config import EVENT_KINDS
from ifdefault.model.errors import HostError
from ifdefault.model.report import Event
from ifdefault.web import history
from ifdefault.web.access import Refused
from ifdefault.web.chart import SPANS, SpanName
from ifdefault.web.helper import Explain
from ifdefault.web.live import said
from ifdefault.web.settings import Faults
from ifdefault.web.site import Site
from ifdefault.web.view import event_row, matching

_MOST_EVENTS = 500  # on a page
_PROTOCOLS = ("tcp", "udp", "icmp", "icmp6")
_ROWS = (  # of an explanation, in this order, with the words of `ifdefault explain`
    *(("direction", "direction"), ("arrival", "arrives"), ("goes_to", "goes to")),
    *(("leaves", "leaves by"), ("source", "source"), ("rule", "rule"), ("route", "route")),
    *(("mechanism", "mechanism"), ("returns", "on return"), ("mptcp", "MPTCP")),
    *(("kernel", "the kernel"), ("astray", "astray"), ("remedy", "remedy")),
)


class Pages:
    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/", self.overview),
            web.get("/live", self.live, allow_head=False),
            web.get("/events", self.events),
            web.get("/explain", self.explain),
            web.get("/outages", self.outages),
            web.get(r"/outages/{id:\d{1,18}}", self.outage),
            web.get(r"/outages/{id:\d{1,18}}.txt", self.outage_text),
            web.get("/static/{name}", self._site.renderer.static),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        span = request.query.get("span", "hour")
        span = span if span in SPANS else "hour"
        snapshot = await self._site.live.snapshot()
        seen = self._site.overview(snapshot)
        names = [card.name for card in seen.uplinks]
        charts, no_charts = dict.fromkeys(names), ""
        try:
            charts = await history.charts(self._site.state_dir, names, span)
        except HostError as error:
            no_charts = said(error)
        usage = snapshot.status.usage if snapshot.status else ()
        budgets = await history.budgets(self._site.state_dir, self._site.settings.uplinks, usage)
        return self._site.renderer.page(
            "overview.html",
            "/",
            view=seen,
            control=self._site.settings.control,
            warning=self._site.warning,
            charts=charts,
            no_charts=no_charts,
            budgets=budgets,
            spans=get_args(SpanName),
            span=span,
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        return await self._site.streams.serve(request, self._site.live)

    async def events(self, request: web.Request) -> web.Response:
        filters = {
            "text": request.query.get("q", "")[:100],
            "kind": request.query.get("kind", ""),
            "uplink": request.query.get("uplink", ""),
            "severity": request.query.get("severity", "info"),
        }
        events, source = await self._known_events()
        found = matching(events, **filters)[: -_MOST_EVENTS - 1 : -1]
        now = time.time()
        return self._site.renderer.page(
            "events.html",
            "/events",
            events=[event_row(event, now) for event in found],
            filter=filters,
            kinds=sorted(EVENT_KINDS),
            uplinks=sorted({*self._site.uplinks, *(e.uplink for e in events if e.uplink)}),
            summary=f"{len(found)} of {len(events)} events {source}, the newest first.",
        )

    async def _known_events(self) -> tuple[list[Event], str]:
        try:
            return await history.events(self._site.state_dir), "of the history"
        except HostError:
            snapshot = await self._site.live.snapshot()
            return list(snapshot.events), "that the daemon still has"

    # --- explain --------------------------------------------------------------------------

    async def explain(self, request: web.Request) -> web.Response:
        query = request.query
        names = ("protocol", "source", "target", "iif", "mark", "uid")
        asked = {name: query.get(name, "")[:60].strip() for name in names}
        answer: list[tuple[str, str]] = []
        notes: tuple[str, ...] = ()
        problems: tuple[str, ...] = ()
        if "target" in query:
            try:
                explained = await self._site.explain(explain_request(asked))
            except (ValueError, HostError) as error:
                problems = (str(error),)
            else:
                if isinstance(explained, Faults):
                    problems = explained.texts
                else:
                    answer, notes = _rows(json.loads(explained.explanation)), explained.notes
        return self._site.renderer.page(
            "explain.html", "/explain", asked=asked, answer=answer, notes=notes, problems=problems
        )

    # --- outages --------------------------------------------------------------------------

    async def outages(self, _: web.Request) -> web.Response:
        rows: list[Any] = []
        trouble = ""
        try:
            rows = await history.outages(self._site.state_dir)
        except HostError as error:
            trouble = said(error)
        days = history.OUTAGE_DAYS
        return self._site.renderer.page(
            "outages.html", "/outages", outages=rows, trouble=trouble, days=days
        )

    async def outage(self, request: web.Request) -> web.Response:
        id_ = int(request.match_info["id"])
        title, report = await self._report(id_)
        return self._site.renderer.page("outage.html", title=title, report=report, id=id_)

    async def outage_text(self, request: web.Request) -> web.Response:
        _, report = await self._report(int(request.match_info["id"]))
        return web.Response(text=report, content_type="text/plain", charset="utf-8")

    async def _report(self, id_: int) -> tuple[str, str]:
        try:
            report = await history.report(self._site.state_dir, id_)
        except HostError as error:
            raise Refused(503, said(error)) from None
        if report is None:
            raise Refused(404, "no such outage")
        return report


def explain_request(asked: dict[str, str]) -> Explain:
    """What a form or a query asks for; ValueError says what would be valid."""
    values: dict[str, Any] = {"protocol": asked["protocol"] or "tcp", "iif": asked["iif"]}
    try:
        values |= {"mark": int(asked["mark"] or "0", 0), "uid": int(asked["uid"] or "0")}
    except ValueError:
        raise ValueError("mark and user ID are numbers, such as 0x1000000 and 1000") from None
    values |= {"source": asked["source"], "target": asked["target"]}
    try:
        return codec.from_json(Explain, values)
    except codec.DecodeError as error:
        if error.path in ("source", "target"):
            what = "is not an address; use 203.0.113.5:443, [2001:db8::5]:443 or any"
            raise ValueError(f'{error.path} "{values[error.path]}" {what}') from None
        raise ValueError(str(error)) from None


def _rows(explanation: dict[str, Any]) -> list[tuple[str, str]]:
    uplink, hop = explanation.get("uplink") or "no uplink", explanation.get("hop", "")
    verb = "is answered by" if explanation.get("direction") == "in" else "leaves by"
    values = {**explanation, "leaves": f"{uplink}: {hop}"}
    rows = [(verb if key == "leaves" else text, values.get(key, "")) for key, text in _ROWS]
    return [(text, str(value)) for text, value in rows if value]

"""The page and the API: the real server, asked over a socket, beside an engine that is none."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.control.parse import parse, refusal
from ifdefault.ipc import codec
from ifdefault.ipc.control.client import OPEN_SOCKET
from ifdefault.ipc.control.protocol import (
    Counters,
    EventList,
    Events,
    SetUplink,
    Status,
    UplinkChanged,
    encode_reply,
)
from ifdefault.ipc.privileges import KEEP
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.health import Decision, Health, LineLoad
from ifdefault.model.report import CounterReport, DaemonStatus, DnsStatus, Event, Named
from ifdefault.monitor.history import reader
from ifdefault.monitor.history.reader import NoHistory
from ifdefault.web import guard, history, site
from ifdefault.web.helper import Files, Helper
from ifdefault.web.main import listen
from ifdefault.web.render import Renderer
from ifdefault.web.server import Server
from ifdefault.web.settings import Settings, UplinkSettings
from ifdefault.web.site import Site

HOSTILE = "<script>alert(1)</script>\"'&\u202e"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;"
TOKEN, CONTROL = "t" * 20, "c" * 20
SETTINGS = Settings(
    "127.0.0.1:8053",
    ("status.example.net",),
    "",
    True,
    (UplinkSettings("isp-a", 0, 1), UplinkSettings("isp-b", 0, 1)),
)
STATUS = DaemonStatus(
    1,
    60.0,
    100.0,
    "/etc/ifdefault/ifdefault.toml",
    (
        Health("isp-a", 4, "up", 40.0, "icmp://1.1.1.1 answers", 0.0, 3.2),
        Health("isp-b", 4, "up", 40.0, HOSTILE, 0.25, 8.1),
    ),
    Decision(((4, ("isp-a", "isp-b")),), ((4, ("isp-a", "isp-b")),)),
    lines=(LineLoad("isp-b", 0.96, "out", 10_000_000, 1, full=True),),
    dns=DnsStatus((Named(HOSTILE, "rotate", 30, (("isp-a", "203.0.113.10"),), 50.0),)),
)
EVENT = Event(1e9, "path", "isp-a", HOSTILE, "error", 7)


class Engine:
    """What the page sees of an engine."""

    def __init__(self) -> None:
        self.status, self.events = STATUS, [EVENT]
        self.asked: list[Any] = []
        self.news, self.refuses = asyncio.Event(), asyncio.Event()
        self.refuses.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = parse(await reader.readline())
            self.asked.append(request)
            writer.write(encode_reply(await self.answer(request)))
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, request: Any) -> Any:
        match request:
            case Status():
                return self.status
            case Counters():
                return CounterReport(1e9)
            case Events():
                if request.wait_s and request.after >= self.events[-1].serial:
                    await self.news.wait()
                found = [event for event in self.events if event.serial > request.after]
                return EventList(tuple(found), self.events[-1].serial)
            case SetUplink(token=token) if token != CONTROL:
                await self.refuses.wait()
                return refusal(HostError(Problem("permission", "the token is wrong")))
            case SetUplink():
                return UplinkChanged(request.name, "auto", request.state)
        raise AssertionError(request)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Web:
    engine: Engine
    server: Server
    port: int
    path: Path

    async def send(self, request: bytes) -> Answer:
        """Send what a client might, and read until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                answer = await reader.read()
        except ConnectionResetError:
            answer = b""
        finally:
            writer.close()
        head, _, body = answer.decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(first.split()[1]) if first else 0, headers, body)

    async def ask(
        self, path: str, method: str = "GET", body: str = "", host: str = "localhost", **more: str
    ) -> Answer:
        headers = {
            "Host": host,
            "Connection": "close",
            **{k.replace("_", "-"): more[k] for k in more},
        }
        if method == "POST":
            headers["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return await self.send("\r\n".join([*lines, "", body]).encode())


@asynccontextmanager
async def serving(path: Path, settings: Settings = SETTINGS) -> AsyncIterator[Web]:
    engine = Engine()
    listening = await asyncio.start_unix_server(engine.serve, path / OPEN_SOCKET)
    files = Files(path / "none.toml", path, path)
    helper = Helper(files, lambda: None, _explain, KEEP, KEEP)
    helper.sock.setblocking(False)
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server(Site(files, helper, settings, Renderer()))
    await server.start(sock)
    try:
        yield Web(engine, server, sock.getsockname()[1], path)
    finally:
        await server.close()
        helper.close()
        listening.close()


def _explain(arguments: Any) -> int:
    if "--iif=wrong" in arguments:
        print("Usage: ifdefault explain\n\nError: Invalid value", file=sys.stderr)
        return 2
    print(json.dumps({"direction": "out", "uplink": HOSTILE, "hop": " ".join(arguments)}))
    return 0


Work = Callable[[Web], Coroutine[Any, Any, None]]


@pytest.fixture
def web(tmp_path: Path) -> Callable[..., None]:
    """`web(work)` runs work(Web) beside a server."""

    def run(work: Work, **changed: Any) -> None:
        async def main() -> None:
            async with serving(tmp_path, replace(SETTINGS, **changed)) as served:
                await work(served)

        asyncio.run(main())

    return run


# --- what it shows ------------------------------------------------------------------------


def test_the_page_shows_the_uplinks_and_hostile_names_stay_text(web: Any) -> None:
    async def work(web: Web) -> None:
        for path in ("/", "/events", "/outages", f"/events?q={HOSTILE[:8]}&kind=path", "/explain"):
            answer = await web.ask(path)
            assert answer.status == 200, path
            assert "<script>alert" not in answer.text
        page = (await web.ask("/")).text
        assert "<dt>Line</dt><dd>96 % of 10 Mbit/s out, an eighth of its weight</dd>" in page
        assert "Both uplinks work; new connections use" in page
        assert page.count(ESCAPED) >= 3  # a cause, a name and an event
        assert '<p class="note">No charts: ' in page  # nobody keeps a history here
        headers = (await web.ask("/")).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert not {"server", "set-cookie"} & headers.keys()
        static = page.partition('stylesheet" href="')[2].partition('"')[0]
        assert (await web.ask(static)).headers["content-type"] == "text/css; charset=utf-8"
        assert (await web.ask("/", "HEAD")).text == ""

    web(work)


def test_an_engine_that_is_away_is_said(web: Any) -> None:
    async def work(web: Web) -> None:
        (web.path / OPEN_SOCKET).unlink()
        page = (await web.ask("/")).text
        assert "No status: no daemon runs" in page
        assert page.count("The daemon doesn't answer.") == 2
        assert page.count('class="state unknown"') == 2  # instead of what it said last
        assert (await web.ask("/api/v1/status")).status == 503
        assert "ifdefault_up 0" in (await web.ask("/metrics")).text

    web(work)


def test_explain_is_run_by_the_helper(web: Any) -> None:
    async def work(web: Web) -> None:
        query = "protocol=tcp&source=192.0.2.7:1234&target=%5B2001:db8::5%5D:443"
        page = (await web.ask(f"/explain?{query}")).text
        assert ESCAPED in page
        assert "-- tcp 192.0.2.7:1234 [2001:db8::5]:443" in page
        assert (await web.ask(f"/api/v1/explain?{query}")).json["uplink"] == HOSTILE
        for bad in ("--help", "a b", "192.0.2.7:x", ""):
            answer = await web.ask(
                f"/api/v1/explain?protocol=tcp&target=any&source={bad}".replace(" ", "%20")
            )
            assert answer.status == 400, bad
        answer = await web.ask("/api/v1/explain?protocol=tcp&target=any&source=any&iif=wrong")
        assert answer.json == {"problems": ["Invalid value"]}, "and not how a command is used"
        assert (await web.ask(f"/api/v1/explain?{query}&iif=a%00b")).status == 400

    web(work)


def test_the_api_says_what_the_engine_does(web: Any) -> None:
    async def work(web: Web) -> None:
        assert codec.from_json(DaemonStatus, (await web.ask("/api/v1/status")).json) == STATUS
        assert (await web.ask("/api/v1/events?after=6&limit=1")).json["events"][0]["serial"] == 7
        assert (await web.ask("/api/v1/events?after=7")).json == {"events": [], "last": 7}
        for bad in ("limit=0", "limit=x", "limit=1&limit=2", "other=1", "after=%D9%A1"):
            assert (await web.ask(f"/api/v1/events?{bad}")).status == 400, bad
        assert (await web.ask("/api/v1/nothing")).json == {"problems": ["Not Found"]}
        document = (await web.ask("/api/v1/openapi.json")).json
        schema = document["components"]["schemas"]["DaemonStatus"]
        assert [*schema["properties"]] == [*(await web.ask("/api/v1/status")).json]

    web(work)


def test_changes_are_sent_as_they_happen(web: Any) -> None:
    async def work(web: Web) -> None:
        async def stream() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return reader, writer

        async def part(reader: asyncio.StreamReader, id_: str, text: str) -> None:
            async with asyncio.timeout(10):
                while True:
                    line = (await reader.readline()).decode()
                    if line.startswith("data: ") and text in json.loads(line[6:]).get(id_, ""):
                        return

        first, writer = await stream()
        await part(first, "part-headline", "Both uplinks work")
        down = replace(STATUS.health[0], state="down", cause="8 rounds lost")
        web.engine.status = replace(STATUS, health=(down, STATUS.health[1]))
        web.engine.events.append(replace(EVENT, serial=8, text="isp-a IPv4: up -> down"))
        since = time.monotonic()
        web.engine.news.set()
        second, other_writer = await stream()
        await part(second, "part-uplink-isp-a", "8 rounds lost")
        await part(first, "part-uplink-isp-a", "8 rounds lost")
        assert time.monotonic() - since < 2.0
        writer.close()
        other_writer.close()
        statuses = [request for request in web.engine.asked if isinstance(request, Status)]
        assert len(statuses) < 12

    web(work)


# --- who may ask --------------------------------------------------------------------------


def test_it_answers_for_its_own_names_only(web: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def work(web: Web) -> None:
        for host in ("localhost:8053", "127.0.0.1", "[::1]:80", "Status.Example.Net"):
            assert (await web.ask("/", host=host)).status == 200, host
        for host in ("evil.example", "localhost.evil.example", "203.0.113.5", "x@localhost", "["):
            assert (await web.ask("/", host=host)).status == 421, host
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
            assert (await web.ask("/", method)).status == 405, method

    web(work)
    assert sum("Host" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://localhost"}, 303),
        ({}, 303),  # no page sent it
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
    ],
)
def test_another_site_changes_nothing(web: Any, headers: dict[str, str], status: int) -> None:
    async def work(web: Web) -> None:
        form = {"Content_Type": "application/x-www-form-urlencoded", **headers}
        answer = await web.ask("/uplinks/isp-a/down", "POST", f"token={CONTROL}", **form)
        assert answer.status == status
        sent = [request for request in web.engine.asked if isinstance(request, SetUplink)]
        assert len(sent) == (status == 303)

    web(work)


def test_another_site_loads_nothing_but_may_link_here(web: Any) -> None:
    async def work(web: Web) -> None:
        image = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
        assert (await web.ask("/explain?target=any", **image)).status == 403
        assert (await web.ask("/", **{**image, "Sec_Fetch_Mode": "navigate"})).status == 200

    web(work)


def test_a_change_needs_the_control_token(web: Any) -> None:
    async def work(web: Web) -> None:
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert 'type="password"' in (await web.ask("/uplinks/isp-a/drain")).text
        body = f"token={CONTROL}&timeout=30m"
        done = await web.ask("/uplinks/isp-a/drain", "POST", body, **form)
        assert (done.status, done.headers["location"]) == (303, "/#uplink-isp-a")
        assert web.engine.asked[-1] == SetUplink("isp-a", "drain", 1800, CONTROL)
        wrong = await web.ask("/uplinks/isp-a/up", "POST", "token=wrong", **form)
        assert (wrong.status, "the token is wrong" in wrong.text) == (403, True)
        late = await web.ask("/uplinks/isp-a/drain", "POST", "token=x&timeout=soon", **form)
        assert late.status == 400
        assert (await web.ask("/uplinks/nobody/up", "POST", body, **form)).status == 404
        api = {"Content_Type": "application/json"}
        body = json.dumps({"state": "up", "token": CONTROL})
        answer = await web.ask("/api/v1/uplinks/isp-b", "POST", body, **api)
        assert answer.json == {"uplink": "isp-b", "was": "auto", "state": "up"}
        for bad in ("", "[]", '{"state": "left"}', '{"state": "up", "x": 1}'):
            assert (await web.ask("/api/v1/uplinks/isp-b", "POST", bad, **api)).status == 400, bad

    web(work)


def test_tokens_that_are_tried_leave_the_page_its_connections(
    web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine refuses wrong ones late, whether or not the client waits."""
    monkeypatch.setattr(site, "_MOST_CHANGES", 2)

    async def work(web: Web) -> None:
        web.engine.refuses.clear()

        async def change() -> Answer:
            body, form = '{"state": "down", "token": "wrong"}', {"Content_Type": "application/json"}
            return await web.ask("/api/v1/uplinks/isp-a", "POST", body, **form)

        async with asyncio.timeout(10):
            for sent in (1, 2):
                asking = asyncio.create_task(change())
                while sum(isinstance(r, SetUplink) for r in web.engine.asked) < sent:
                    await asyncio.sleep(0.01)
                asking.cancel()
            answer = await change()
            assert answer.status == 503
            assert answer.json["problems"] == ["too many changes at once; try again"]
            web.engine.refuses.set()
            while answer.status == 503:
                answer = await change()
            assert answer.status == 403

    web(work)


def test_without_a_control_token_it_is_read_only(web: Any) -> None:
    async def work(web: Web) -> None:
        assert "/uplinks/" not in (await web.ask("/")).text
        assert (await web.ask("/uplinks/isp-a/down")).status == 403
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        answer = await web.ask("/uplinks/isp-a/down", "POST", f"token={CONTROL}", **form)
        assert answer.status == 403
        assert not [request for request in web.engine.asked if isinstance(request, SetUplink)]

    web(work, control=False)


def test_whoever_reads_must_know_the_token(web: Any, caplog: pytest.LogCaptureFixture) -> None:
    def basic(password: str) -> str:
        return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()

    async def work(web: Web) -> None:
        for given in (basic(TOKEN), f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
            assert (await web.ask("/", Authorization=given)).status == 200, given
        for given in (basic("x"), f"Bearer {TOKEN}x", "Basic !", "Digest x"):
            answer = await web.ask("/metrics", Authorization=given)
            assert answer.status == 401, given
            assert answer.headers["www-authenticate"].startswith("basic")
        for path in ("/", "/live", "/api/v1/status", "/metrics", "/static/page.js"):
            assert (await web.ask(path)).status == 401, path

    web(work, token=TOKEN)
    assert TOKEN not in caplog.text


def test_an_address_that_is_to_be_listened_at_opens_no_other(web: Any) -> None:
    """A token that the new address doesn't need is needed until the restart."""

    async def work(web: Web) -> None:
        config = '[web]\nlisten = "127.0.0.2:8053"\n[uplink.isp-c]\ninterface = "wan2"\n'
        (web.path / "none.toml").write_text(config)
        async with asyncio.timeout(10):
            while not any(isinstance(r, Events) and r.wait_s for r in web.engine.asked):
                await asyncio.sleep(0.01)
            web.engine.events.append(replace(EVENT, kind="reload", serial=8))
            web.engine.news.set()
            while web.server.site.uplinks != ("isp-c",):
                await asyncio.sleep(0.01)
        assert "restart" in web.server.site.warning
        assert (await web.ask("/")).status == 401

    web(work, token=TOKEN)


def test_a_port_in_use_is_said_in_few_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        where = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(HostError, match=f"web.listen: {where}: address already in use; choose"):
            listen(where)


# --- what costs too much ------------------------------------------------------------------


def test_what_is_too_large_or_malformed_is_refused(
    web: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(web: Web) -> None:
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert (await web.ask("/uplinks/isp-a/up", "POST", "x" * 5000, **form)).status == 413
        assert (await web.ask("/", X=10_000 * "x")).status == 400
        assert (await web.ask("/" + 10_000 * "x")).status == 400
        for body, kind, status in (
            ("token=%ff", "application/x-www-form-urlencoded; charset=nonsense", 403),
            ("a&" * 100, "application/x-www-form-urlencoded", 400),
            ("a=b&" * 100, "application/x-www-form-urlencoded", 400),
            ("--x\r\n", "multipart/form-data; boundary=x", 415),
            ("--x\r\n", "multipart/form-data", 415),
        ):
            answer = await web.ask("/uplinks/isp-a/up", "POST", body, Content_Type=kind)
            assert answer.status == status, (body, kind)
        form["Content_Encoding"] = "gzip"
        assert (await web.ask("/uplinks/isp-a/up", "POST", "junk", **form)).status == 400
        for line in (b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n"):
            answer = await web.send(line)
            assert answer.status in (0, 400, 421)
            assert "aiohttp" not in str(answer)
        assert (await web.ask("/")).status == 200

    web(work)
    assert "Traceback" not in caplog.text


def test_a_history_that_hangs_keeps_no_page_waiting(
    web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PATIENCE_S", 0.05)
    hangs = threading.Event()

    def reading(_: Path) -> Any:
        hangs.wait(20)
        raise NoHistory("none")

    monkeypatch.setattr(reader, "reading", reading)

    async def work(web: Web) -> None:
        try:
            for path in ("/", "/outages"):
                answer = await web.ask(path)
                assert answer.status == 200
                assert "the history can&#39;t be read in 0.05 s" in answer.text
        finally:
            hangs.set()
        async with asyncio.timeout(10):
            while "can&#39;t be read in" in (await web.ask("/outages")).text:
                await asyncio.sleep(0.01)

    web(work)


def test_who_is_too_slow_is_disconnected(
    web: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "REQUEST_S", 0.2)

    async def work(web: Web) -> None:
        assert (await web.send(b"GET / HTTP/1.1\r\nHost: loc")).status == 0
        assert (await web.ask("/")).status == 200

    web(work)
    assert "a request: too slow" in caplog.text


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("", ""),
    ],
)
def test_a_host_has_an_address_or_a_prefix(address: str, host: str) -> None:
    assert guard.host_of(address) == host


def test_connections_are_limited(
    web: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "MOST", 3)

    async def work(web: Web) -> None:
        idle = [await asyncio.open_connection("127.0.0.1", web.port) for _ in range(3)]
        assert (await web.ask("/")).status == 0
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(10):
            while web.server.guard.connections:
                await asyncio.sleep(0)
        assert (await web.ask("/")).status == 200

    web(work)
    assert "a connection: too many" in caplog.text

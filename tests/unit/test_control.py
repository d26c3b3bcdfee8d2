"""The control socket: who may request what, and that no client can harm the others."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ifdefault import __version__
from ifdefault.daemon.control import endpoint, server
from ifdefault.daemon.control.server import Control
from ifdefault.ipc import codec
from ifdefault.ipc.codec import DecodeError, from_json, to_json
from ifdefault.ipc.control import async_client, client, protocol
from ifdefault.ipc.control.client import OPEN_SOCKET, NotRunning, Peer, ask
from ifdefault.ipc.control.protocol import (
    Asks,
    Command,
    Confirm,
    Confirmed,
    Counters,
    Down,
    Entered,
    EventList,
    Events,
    Exec,
    Query,
    R,
    Refusal,
    Reload,
    Reply,
    Request,
    SetUplink,
    Status,
    UplinkChanged,
)
from ifdefault.lab.waiting import eventually
from ifdefault.model.changes import Changes
from ifdefault.model.errors import ConfigError, HostError, Problem
from ifdefault.model.health import Decision, Health, TargetHealth
from ifdefault.model.report import CheckedServer, CounterReport, DaemonStatus, Event, PathCounters

STATUS_LINE = b'{"type": "Status"}\n'
REPLY = DaemonStatus(1, 2.0, 3.0, "x")
REPLIES: dict[type[Request], Reply] = {
    Status: REPLY,
    Events: EventList((Event(1.5, "path", "a", "text", "error", 8),), 8),
    Counters: CounterReport(1.5, (PathCounters("a", 4, 1, 0, 0.1, (1,), (("up", 1),), 0.0, (0,)),)),
    SetUplink: UplinkChanged("a", "auto", "drain"),
    Reload: Changes(
        ("ip rule add",), {"b": "why"}, (Problem("x", "y", "z", True),), {"t": "nft"}, 1, 2
    ),
    Confirm: Confirmed(),
    Down: Changes((), {}, (), {}, 0, 0),
    Exec: Entered("/sys/fs/cgroup/x"),
}
NOBODY = 65534


class Engine:
    """A control socket in a loop of its own, with answers as told."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.path = run_dir / client.SOCKET
        self.asked: list[Request] = []
        self.last = 7
        self.control_token = ""
        self.refused: list[int] = []
        self.peers: list[Peer] = []  # of commands
        self.fails: Exception | None = None
        self.waits: asyncio.Event | None = None
        self.faults: list[dict[str, Any]] = []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.control = Control(run_dir, self)
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def token_refused(self, uid: int) -> None:
        self.refused.append(uid)

    def read(self, query: Query) -> Reply:
        self.asked.append(query)
        if self.fails:
            raise self.fails
        return REPLIES[type(query)]

    async def perform(self, command: Command, peer: Peer) -> Reply:
        self.asked.append(command)
        self.peers.append(peer)
        if self.waits:
            await self.waits.wait()
        if self.fails:
            raise self.fails
        return REPLIES[type(command)]

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self.control.start(), self.loop).result(10)

    def release(self) -> None:
        assert self.waits is not None
        self.loop.call_soon_threadsafe(self.waits.set)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.control.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def ask(self, request: Asks[R]) -> R:
        return ask(self.run_dir, request, 10.0)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(60)
        sock.connect(str(self.path))
        return sock

    def tell(self, data: bytes) -> list[dict[str, Any]]:
        """Send anything, close our half, and return all replies until the other hangs up."""
        with self.connect() as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it had enough before we were done
            return [json.loads(line) for line in received(sock).splitlines()]


def received(sock: socket.socket) -> bytes:
    told = b""
    try:
        while data := sock.recv(65536):
            told += data
    except ConnectionResetError:
        pass  # it hung up with something of ours unread
    return told


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "run")
    engine.start()
    yield engine
    engine.close()
    assert engine.faults == []


# --- asking --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ({"type": "Status"}, Status()),
        ({"type": "Events", "limit": 5}, Events(5)),
        ({"type": "Events", "limit": 5, "after": 6, "wait_s": 30}, Events(5, 6, 30)),
        ({"type": "Counters"}, Counters()),
        ({"type": "SetUplink", "name": "a", "state": "drain"}, SetUplink("a", "drain")),
        ({"type": "Exec", "uplink": "a", "netns": 1 << 32}, Exec("a", 1 << 32)),
        ({"type": "Reload", "confirm_s": None}, Reload(None)),
        ({"type": "Reload", "confirm_s": 60}, Reload(60)),
        ({"type": "Reload"}, Reload()),
        ({"type": "Confirm"}, Confirm()),
        ({"type": "Down"}, Down()),
    ],
)
def test_requests(engine: Engine, line: dict[str, Any], parsed: Request) -> None:
    reply = REPLIES[type(parsed)]
    assert engine.ask(cast(Asks[Reply], parsed)) == reply
    told = engine.tell(json.dumps(line).encode() + b"\n")
    assert [each["type"] for each in told] == [type(reply).__name__]
    assert engine.asked == 2 * [parsed]
    assert {*engine.peers} <= {Peer(os.getpid(), os.geteuid(), os.getegid())}


def test_several_requests_on_one_connection(engine: Engine) -> None:
    assert [reply["type"] for reply in engine.tell(3 * STATUS_LINE)] == 3 * ["DaemonStatus"]


def test_an_error_of_the_engine_comes_with_its_exit_status(engine: Engine) -> None:
    engine.fails = ConfigError(Problem("f.toml:3: uplink.a", "no good", "better"))
    assert engine.tell(b'{"type": "Reload"}\n') == [
        {
            "type": "Refusal",
            "version": __version__,
            "valid": True,
            "exit_status": 2,
            "problems": [
                {
                    "where": "f.toml:3: uplink.a",
                    "what": "no good",
                    "remedy": "better",
                    "warning": False,
                    "blocks": True,
                    "hint": False,
                }
            ],
        }
    ]
    with pytest.raises(ConfigError) as caught:
        engine.ask(Reload())
    assert caught.value.problems == engine.fails.problems


def test_an_internal_error_is_answered_and_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.fails = ZeroDivisionError("by zero")
    with pytest.raises(HostError, match="internal error: ZeroDivisionError: by zero"):
        engine.ask(Status())
    assert "ZeroDivisionError" in caplog.text
    engine.fails = None
    assert engine.ask(Status()) == REPLY


def test_a_client_that_leaves_meanwhile_is_no_fault(engine: Engine) -> None:
    engine.waits = asyncio.Event()
    with engine.connect() as sock:
        sock.sendall(b'{"type": "Confirm"}\n')
        eventually(lambda: engine.asked)
    engine.release()
    assert engine.ask(Status()) == REPLY


def test_an_engine_that_does_not_answer(engine: Engine) -> None:
    engine.waits = asyncio.Event()
    with pytest.raises(HostError, match=r"no answer from the daemon in 0\.1 s; see its log"):
        ask(engine.run_dir, Confirm(), 0.1)
    engine.release()


# --- waiting for news ----------------------------------------------------------------------


WAIT_LINE = b'{"type": "Events", "limit": 5, "after": 7, "wait_s": 30}\n'


def other_socket(engine: Engine) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(60)
    sock.connect(str(engine.run_dir / client.OPEN_SOCKET))
    return sock


def waiting(engine: Engine) -> int:
    return sum(c.wait is not None for e in engine.control.endpoints for c in [*e.clients])


def call(engine: Engine, function: Callable[[], None]) -> None:
    engine.loop.call_soon_threadsafe(function)


def test_all_that_wait_are_answered_once_there_is_news(engine: Engine) -> None:
    """What was cached before isn't news. Those that have left meanwhile cost nothing."""
    with ExitStack() as stack:
        socks = [stack.enter_context(engine.connect()) for _ in range(3)]
        socks += [stack.enter_context(other_socket(engine)) for _ in range(9)]
        for sock in socks:
            sock.sendall(WAIT_LINE)
        eventually(lambda: waiting(engine) == 12)
        socks[0].close()
        socks[-1].close()
        eventually(lambda: waiting(engine) == 10)
        call(engine, engine.control._tell)  # of what was known when they began to wait
        assert engine.asked == []
        engine.last = 8
        call(engine, engine.control.news)
        call(engine, engine.control.news)  # at once: one answer to both
        for sock in socks[1:-1]:
            assert json.loads(sock.makefile().readline())["last"] == 8
            sock.sendall(STATUS_LINE)
            assert json.loads(sock.makefile().readline())["type"] == "DaemonStatus"
        assert len([query for query in engine.asked if isinstance(query, Events)]) == 3
        assert waiting(engine) == 0


def test_a_wait_ends_after_its_time_and_with_the_engine(engine: Engine) -> None:
    with engine.connect() as short, other_socket(engine) as long:
        long.sendall(WAIT_LINE)
        eventually(lambda: waiting(engine) == 1)
        short.sendall(WAIT_LINE.replace(b"30", b"1"))
        assert json.loads(short.makefile().readline())["type"] == "EventList"
        assert waiting(engine) == 1
        asyncio.run_coroutine_threadsafe(engine.control.close(), engine.loop).result(10)
        assert json.loads(received(long))["type"] == "EventList"


@pytest.mark.parametrize("after", [-1, 6, 8])
def test_whoever_missed_something_need_not_wait(engine: Engine, after: int) -> None:
    """Nor who knows of more than there is: the engine has lost its state."""
    assert engine.ask(Events(5, after, 30)) == REPLIES[Events]


# --- who may what --------------------------------------------------------------------------


def ask_as_nobody(pipe: Connection) -> None:
    """A process of its own: become another user, be told the directory and what to ask."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    run_dir, requests = pipe.recv()
    pipe.send([reply_or_error(run_dir, request) for request in requests])


def reply_or_error(run_dir: Path, request: Request) -> Reply | HostError:
    try:
        return ask(run_dir, cast(Asks[Reply], request), 10.0)
    except HostError as error:
        return error


def replies_to_nobody(requests: list[Request]) -> tuple[Engine, list[Reply | HostError]]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=ask_as_nobody, args=(theirs,))
    child.start()  # before there are threads
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        engine = Engine(Path(folder) / "run")
        engine.start()
        ours.send((engine.run_dir, requests))
        assert ours.poll(10)
        replies = ours.recv()
        child.join(10)
        engine.close()
    return engine, replies


def test_others_may_look_and_move_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked by a process of another user, where we may become one."""
    requests: list[Request] = [
        Status(),
        Events(1),
        SetUplink("a", "down"),
        Reload(),
        Confirm(),
        Down(),
        Exec("a", 1),
    ]
    if os.geteuid() == 0 and can_become(NOBODY):
        engine, replies = replies_to_nobody(requests)
    else:
        monkeypatch.setattr(endpoint, "credentials", lambda _: Peer(1, NOBODY, NOBODY))
        engine = Engine(tmp_path / "run")
        engine.start()
        replies = [reply_or_error(engine.run_dir, request) for request in requests]
        engine.close()
    for request, reply in zip(requests, replies, strict=True):
        if isinstance(request, Status | Events | Exec):
            assert reply == REPLIES[type(request)]
        else:
            what = f"uid {NOBODY} may only read the status and events, and use exec"
            assert str(reply) == f"permission: {what}; run as root"
    assert [type(request).__name__ for request in engine.asked] == ["Status", "Events", "Exec"]
    assert {peer.uid for peer in engine.peers} == {NOBODY}


def test_a_token_permits_it_and_wrong_ones_are_refused_late_one_after_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "credentials", lambda _: Peer(1, NOBODY, NOBODY))
    monkeypatch.setattr(server, "TOKEN_S", 0.2)
    right, wrong = (SetUplink("a", "down", token=text) for text in ("right-" * 4, "wrong-" * 4))
    with pytest.raises(HostError, match="no token permits changes; set web"):
        engine.ask(right)
    engine.control_token = right.token
    start_s = time.monotonic()
    with ExitStack() as stack:
        socks = [stack.enter_context(engine.connect()) for _ in range(4)]
        for sock in socks:
            sock.sendall(protocol.encode_request(wrong))
        eventually(
            lambda: sum(c.task is not None for c in engine.control.endpoints[1].clients) == 4
        )
        assert engine.ask(right) == REPLIES[SetUplink]
        assert engine.refused == []
        for sock in socks:
            assert b"wrong token" in sock.makefile("rb").readline()
    assert time.monotonic() - start_s >= 0.8
    assert engine.refused == 4 * [NOBODY]
    assert engine.asked == [right]
    with pytest.raises(HostError, match="may only read"):
        engine.ask(SetUplink("a", "down"))
    engine.fails = ZeroDivisionError("by zero")
    with pytest.raises(HostError, match="internal error"):
        engine.ask(right)
    assert right.token not in caplog.text


def test_wrong_tokens_leave_room_for_those_who_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = NOBODY
    monkeypatch.setattr(endpoint, "credentials", lambda _: Peer(1, uid, uid))
    right, wrong = (SetUplink("a", "down", token=text) for text in ("right-" * 4, "wrong-" * 4))
    engine.control_token = right.token
    with ExitStack() as stack:

        def send_wrong() -> bytes:
            sock = stack.enter_context(engine.connect())
            sock.settimeout(0.05)
            sock.sendall(protocol.encode_request(wrong))
            try:
                return sock.recv(1000)
            except TimeoutError:
                return b""

        assert [send_wrong() for _ in range(server.MOST_WRONG)] == [b""] * server.MOST_WRONG
        assert b"too many wrong tokens" in send_wrong()
        with pytest.raises(HostError, match="too many wrong tokens; try again in a minute"):
            engine.ask(right)
        assert engine.ask(Status()) == REPLIES[Status]
        uid += 1
        assert engine.ask(right) == REPLIES[SetUplink], "other users' are heard"


def can_become(uid: int) -> bool:
    """Whether this user namespace has the user at all."""
    mapped = Path("/proc/self/uid_map").read_text().splitlines()
    spans = [(int(first), int(count)) for first, _, count in map(str.split, mapped)]
    return any(first <= uid < first + count for first, count in spans)


def test_one_socket_is_open_to_all_and_its_directory_is_not(engine: Engine) -> None:
    assert stat.S_IMODE(engine.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((engine.run_dir / client.OPEN_SOCKET).stat().st_mode) == 0o666
    assert stat.S_IMODE(engine.run_dir.stat().st_mode) & 0o022 == 0


# --- garbage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"\n", 'not JSON; send {"type": "Status"}'),
        (b"GET / HTTP/1.1\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 4000 + b"\n", "not JSON"),
        (b"9" * 4000 + b"\n", "not"),
        (b"[]\n", 'not an object; send {"type": "Status"}'),
        (b'{"type": ["Status"]}\n', 'of unknown type; send {"type": "Status"}'),
        (b'{"type": "Explode"}\n', "of unknown type; use one of Status, Events, Counters"),
        (b'{"type": "Status", "x": 1}\n', "Status: no field 'x'; send Status with nothing else"),
        (b'{"type": "Events"}\n', "Events.limit: missing; send Events with limit"),
        (b'{"type": "Events", "limit": true}\n', "Events.limit: not a number from 1 to 10000"),
        (b'{"type": "Events", "limit": 0}\n', "Events.limit: not a number from 1 to 10000"),
        (
            b'{"type": "SetUplink", "name": "a", "state": "sideways"}\n',
            'SetUplink.state: not one of "auto", "up", "down", "drain"',
        ),
        (
            b'{"type": "SetUplink", "name": {}, "state": "up"}\n',
            "SetUplink.name: not 1 to 31 characters",
        ),
        (
            b'{"type": "SetUplink", "name": "", "state": "up"}\n',
            "SetUplink.name: not 1 to 31 characters",
        ),
        (b'{"type": "Exec", "uplink": "a", "netns": -1}\n', "Exec.netns: not a number from 1"),
        (b'{"type": "Reload", "confirm_s": -1}\n', "confirm_s: not a number from 1 to 86400"),
        (b'{"type": "Reload", "confirm_s": 1e9}\n', "confirm_s: not a number from 1 to 86400"),
        (b'{"type": "Status"}', "truncated; end it with a newline"),
        (b"x" * (endpoint.LONGEST_REQUEST + 10), "longer than 4096 bytes"),
    ],
)
def test_garbage_is_answered_and_hung_up_on(engine: Engine, line: bytes, told: str) -> None:
    [reply] = engine.tell(line + (STATUS_LINE if line.endswith(b"\n") else b""))
    assert reply["type"] == "Refusal"
    assert told in str(Problem(**reply["problems"][0]))
    assert engine.asked == []
    assert engine.ask(Status()) == REPLY


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
_NEARLY = st.fixed_dictionaries(
    {"type": st.sampled_from([kind.__name__ for kind in REPLIES]) | _JSON},
    optional=dict.fromkeys(("limit", "name", "state", "confirm_s", "uplink", "netns", "x"), _JSON),
)


@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda data: data + b"\n")
    | (_JSON | _NEARLY).map(lambda value: json.dumps(value).encode() + b"\n")
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_sent_does_harm(engine: Engine, data: bytes) -> None:
    for reply in engine.tell(data):
        assert isinstance(reply["type"], str)
    assert engine.faults == []
    assert engine.ask(Status()) == REPLY


def test_a_slow_client_is_hung_up_on_and_keeps_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE_S", 0.1)
    with engine.connect() as slow, engine.connect() as slower:
        slow.sendall(b'{"type": ')
        assert engine.ask(Status()) == REPLY
        for sock in (slow, slower):
            assert "incomplete after 0.1 s; send it at once" in str(
                Problem(**json.loads(received(sock))["problems"][0])
            )


def test_a_client_that_takes_no_reply_is_hung_up_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE_S", 0.1)
    engine.fails = HostError("x" * 1_000_000)
    with engine.connect() as deaf:
        deaf.sendall(STATUS_LINE)
        eventually(lambda: engine.asked)
        eventually(lambda: not clients(engine))
        assert len(received(deaf)) < 1_000_000
    engine.fails = None
    assert engine.ask(Status()) == REPLY


def test_a_long_reply_is_sent_as_it_is_read(engine: Engine) -> None:
    engine.fails = HostError("x" * 3_000_000)
    for _ in range(2):
        with pytest.raises(HostError, match=r"^x{3000000}$"):
            engine.ask(Status())
    engine.fails = None


# --- crowds --------------------------------------------------------------------------------


def clients(engine: Engine, name: str = client.SOCKET) -> set[endpoint.Client]:
    [found] = [each for each in engine.control.endpoints if each._path.name == name]
    return found.clients


def test_who_was_silent_longest_makes_room(engine: Engine) -> None:
    with ExitStack() as stack:
        many = []
        for _ in range(endpoint.MOST_OF_A_USER):
            many.append(stack.enter_context(engine.connect()))
            eventually(lambda: len(clients(engine)) == len(many))
        for sock in many[:2]:
            sock.sendall(STATUS_LINE)
            assert json.loads(sock.recv(4096))["type"] == "DaemonStatus"
        assert engine.ask(Status()) == REPLY
        [reply] = received(many[2]).splitlines()
        assert Problem(**json.loads(reply)["problems"][0]) == Problem(
            "control", "too many other clients are connected", "try again"
        )
        many[0].sendall(STATUS_LINE)
        assert json.loads(many[0].recv(4096))["type"] == "DaemonStatus"


def test_who_waits_for_a_reply_is_not_sent_away(engine: Engine) -> None:
    engine.waits = asyncio.Event()
    with ExitStack() as stack:
        many = [stack.enter_context(engine.connect()) for _ in range(endpoint.MOST_OF_A_USER)]
        for sock in many:
            sock.sendall(b'{"type": "Confirm"}\n')
        eventually(lambda: len(engine.asked) == len(many))
        with pytest.raises(HostError, match=r"^control: too many other clients are connected; try"):
            engine.ask(Status())
        engine.release()
        for sock in many:
            assert json.loads(sock.recv(4096))["type"] == "Confirmed"
        assert engine.ask(Status()) == REPLY


def test_a_crowd_of_other_users_keeps_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users have as many clients as there may be, and another one comes."""
    monkeypatch.setattr(endpoint, "PATIENCE_S", 600.0)  # a busy machine takes long to accept all
    uids = iter([*(uid for uid in range(1, 6) for _ in range(30)), 6])
    monkeypatch.setattr(endpoint, "credentials", lambda _: Peer(1, next(uids), 1))
    path = str(engine.run_dir / client.OPEN_SOCKET)
    with ExitStack() as stack:
        for _ in range(150):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(path)
        eventually(lambda: len(clients(engine, client.OPEN_SOCKET)) == endpoint.MOST_CLIENTS)
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(60)
            other.connect(path)
            other.sendall(STATUS_LINE)
            assert json.loads(other.recv(4096))["type"] == "DaemonStatus"
        assert len(clients(engine, client.OPEN_SOCKET)) <= endpoint.MOST_CLIENTS


def test_a_crowd_that_waits_for_refusals_keeps_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user with most clients has none that could go, and others have some."""
    engine.control_token = "right-" * 4
    monkeypatch.setattr(endpoint, "PATIENCE_S", 600.0)
    monkeypatch.setattr(server, "TOKEN_S", 600.0)
    monkeypatch.setattr(endpoint, "MOST_CLIENTS", 12)
    uids = iter([*range(1, 6), *(8 * [7]), 6])  # the last of 7 takes the place of one
    monkeypatch.setattr(endpoint, "credentials", lambda _: Peer(1, next(uids), 1))
    engine.path = engine.run_dir / client.OPEN_SOCKET
    wrong = protocol.encode_request(SetUplink("a", "down", token="wrong-" * 4))
    with ExitStack() as stack:
        for number in range(13):
            sock = stack.enter_context(engine.connect())
            if number >= 5:
                sock.sendall(wrong)
        eventually(lambda: sum(bool(c.task) for c in clients(engine, client.OPEN_SOCKET)) == 8)
        assert engine.tell(STATUS_LINE)[0]["type"] == "DaemonStatus"


def test_replies_to_others_are_as_old_as_that(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_both() -> None:
        for name in (client.SOCKET, client.OPEN_SOCKET):
            engine.path = engine.run_dir / name
            assert [reply["type"] for reply in engine.tell(2 * STATUS_LINE)] == 2 * ["DaemonStatus"]

    monkeypatch.setattr(server, "CACHE_S", 1000.0)
    ask_both()
    assert len(engine.asked) == 3
    ask_both()
    assert len(engine.asked) == 5
    monkeypatch.setattr(server, "CACHE_S", 0.0)
    ask_both()
    assert len(engine.asked) == 9


# --- one engine ----------------------------------------------------------------------------


def test_a_second_engine_is_refused(engine: Engine) -> None:
    second = Engine(engine.run_dir)
    with pytest.raises(
        HostError, match=f"another engine is running, pid {os.getpid()}; stop it first"
    ):
        second.start()
    second.close()
    assert engine.ask(Status()) == REPLY
    (engine.run_dir / server.LOCK).unlink()  # by somebody who cleans up
    third = Engine(engine.run_dir)
    with pytest.raises(
        HostError, match=f"another engine is running, pid {os.getpid()}; stop it first"
    ):
        third.start()
    third.close()
    assert engine.ask(Status()) == REPLY


def test_what_a_dead_engine_left_is_replaced(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, pathlib, sys, time\n"
        "from ifdefault.daemon.control.server import Control\n"
        "async def main():\n"
        "    await Control(pathlib.Path(sys.argv[1]), None).start()\n"
        "    if os.fork():\n"
        "        os.kill(os.getpid(), 9)\n"
        "    time.sleep(0.3)\n"  # a child that hasn't executed its program yet
        "    os._exit(0)\n"
        "asyncio.run(main())"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -9
    assert (tmp_path / client.SOCKET).is_socket()
    engine = Engine(tmp_path)
    engine.start()
    assert engine.ask(Status()) == REPLY
    engine.close()


def test_closing_leaves_no_socket_and_ends_conversations(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.start()
    assert client.listener(tmp_path / client.SOCKET)
    with engine.connect() as sock:
        sock.sendall(STATUS_LINE)
        assert json.loads(sock.recv(4096))["type"] == "DaemonStatus"
        engine.close()
        assert received(sock) == b""
    assert not engine.path.exists()
    assert not client.listener(tmp_path / client.SOCKET)
    with pytest.raises(NotRunning, match="no daemon runs; start it"):
        engine.ask(Status())
    assert engine.faults == []


def test_a_file_in_the_way_is_not_ours_to_remove(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.path.write_text("mine")
    with pytest.raises(HostError, match="is not a socket; remove it"):
        engine.start()
    engine.close()
    assert engine.path.read_text() == "mine"


def test_run_dirs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run_dir, told in (
        (tmp_path / "file" / "run", "can't be used: not a directory; run as root, or use"),
        (tmp_path / ("x" * 100), "too long for a socket"),
    ):
        engine = Engine(run_dir)
        with pytest.raises(HostError, match=told):
            engine.start()
        engine.close()
        with pytest.raises(NotRunning):
            engine.ask(Status())


OTHER_VERSION = (
    f"the daemon is version 9, this command is {__version__};"
    " restart the daemon: systemctl restart ifdefault"
)
_OF_9 = {"type": "Refusal", "version": "9"}


def test_another_version_that_is_understood_is_no_fault(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "__version__", "9")
    [reply] = engine.tell(STATUS_LINE)
    assert reply["version"] == "9"
    monkeypatch.undo()
    line = json.dumps(reply).encode()
    assert protocol.decode_reply(Status(), line) == REPLY


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "the daemon closed the connection"),
        (b"garbage\n", "invalid answer from the daemon: not JSON"),
        (b"[]\n", "invalid answer from the daemon: not an object"),
        (b'{"type": "Confirmed"}\n', "invalid answer from the daemon: of unknown type"),
        (
            codec.write(to_json(REPLY) | {"type": "DaemonStatus", "mood": "good"}),
            "DaemonStatus: no field 'mood'; it may be another version, restart it: systemctl",
        ),
        (
            codec.write(to_json(REPLY) | {"type": "DaemonStatus", "mood": "good", "version": "9"}),
            OTHER_VERSION,
        ),
        (b'{"type": "Refusal", "problems": [], "mood": "bad", "version": "9"}\n', OTHER_VERSION),
        (
            b'{"type": "Refusal", "problems": [], "valid": false, "version": "9"}\n',
            OTHER_VERSION,
        ),
        (
            codec.write(to_json(Refusal((Problem("f.toml", "no good"),))) | _OF_9),
            f"f.toml: no good\n{OTHER_VERSION}",
        ),
    ],
)
def test_an_engine_that_talks_nonsense(tmp_path: Path, answer: bytes, told: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / client.SOCKET))
        server.listen()

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                conn.recv(4096)
                conn.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(HostError, match=re.escape(told)):
            ask(tmp_path, Status(), 10.0)
        thread.join(10)


# --- what is told --------------------------------------------------------------------------


def test_standing_comes_through_json() -> None:
    standing = DaemonStatus(
        pid=7,
        up_s=1.5,
        now_s=100.25,
        config="/etc/x",
        health=(
            Health("a", 4, "down", 90.0, "4 rounds", 0.5, 12.5, "silent", True, 0.0,
                   (TargetHealth("icmp://192.0.2.1", 3, 4, 1.5, "silent"),)),
        ),
        decision=Decision(((4, ("b", "a")),), ((4, ("b",)),), (("10.0.0.10", 443),)),
        forced={"a": "drain"},
        held="down",
        conflicts=("a rule",),
        problems=("x doesn't resolve",),
        rates={"a": (1.0, 2.0)},
        servers=(CheckedServer("tcp:443", "10.0.0.10", 443, "down", 99.0, "no answer"),),
    )  # fmt: skip
    told = to_json(standing)
    assert from_json(DaemonStatus, json.loads(json.dumps(told))) == standing
    bare = DaemonStatus(1, 2.0, 3.0, "x")
    assert from_json(DaemonStatus, json.loads(json.dumps(to_json(bare)))) == bare
    for broken in (
        {},
        {"pid": 7},
        told | {"x": 1},
        told | {"health": 3},
        told | {"servers": [{"port": 1}]},
    ):
        with pytest.raises(DecodeError):
            from_json(DaemonStatus, broken)


def test_who_asks_loads_no_asyncio() -> None:
    code = (
        "import sys, ifdefault.ipc.control.client;"
        " assert not {'asyncio', 'pydantic'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_waits_for_news_waits_for_the_backlog(tmp_path: Path) -> None:
    """As long as others connect faster than the engine accepts."""
    reply = protocol.encode_reply(REPLIES[Status])

    async def work() -> None:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as crowd:
            listener.bind(str(tmp_path / OPEN_SOCKET))
            listener.listen(0)
            crowd.connect(str(tmp_path / OPEN_SOCKET))
            asking = asyncio.create_task(async_client.ask(tmp_path, Status(), 5.0))
            await asyncio.sleep(0.1)
            assert not asking.done()
            listener.accept()[0].close()
            await asyncio.sleep(0.1)
            with listener.accept()[0] as accepted:
                accepted.sendall(reply)
                assert await asking == REPLIES[Status]
            crowd.close()
            with socket.socket(socket.AF_UNIX) as again:
                again.connect(str(tmp_path / OPEN_SOCKET))
                with pytest.raises(HostError, match=r"no answer from the daemon in 0\.2 s"):
                    await async_client.ask(tmp_path, Status(), 0.2)

    asyncio.run(work())

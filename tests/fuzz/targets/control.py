"""The control sockets: requests of any local user, and replies of a daemon of any version."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from ifdefault.daemon.control import parse
from ifdefault.daemon.control.endpoint import Wait
from ifdefault.daemon.control.server import Control
from ifdefault.ipc import codec
from ifdefault.ipc.control import protocol
from ifdefault.ipc.control.client import Peer
from ifdefault.ipc.control.protocol import (
    Command,
    Confirm,
    Confirmed,
    Down,
    Entered,
    EventList,
    Events,
    Exec,
    OtherVersion,
    Query,
    Refusal,
    Reload,
    SetUplink,
    Status,
    UplinkChanged,
    decode_reply,
    encode_reply,
    encode_request,
)
from ifdefault.model.changes import Changes
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.report import DaemonStatus, Event

KIND = "json"
REQUESTS: tuple[Any, ...] = (
    Status(), Events(5), SetUplink("isp-a", "down"), Reload(60), Confirm(), Down(), Exec("isp-a", 7)
)  # fmt: skip
_STRANGER = Peer(4711, 1000, 1000)


def seeds() -> list[bytes]:
    replies: tuple[protocol.Reply, ...] = (
        DaemonStatus(1, 2.0, 3.0, "/etc/ifdefault.toml", forced={"isp-a": "down"}),
        EventList((Event(1.0, "path", "isp-a", "up -> down"),)),
        UplinkChanged("isp-a", "up", "down"),
        Changes(("add",), {"isp-b": "no route"}, (Problem("a", "b"),), {"ifdefault": ""}, 1, 2),
        Confirmed(),
        Entered("/a"),
        Refusal((Problem("a", "b", "c"),)),
    )
    return [*map(encode_request, REQUESTS), *map(encode_reply, replies)]


def one(data: bytes) -> None:
    _request(data)
    for request in REQUESTS:
        try:
            reply = decode_reply(request, data)
        except OtherVersion as error:
            assert str(error).isprintable(), error
        except codec.DecodeError as error:
            assert str(error).isprintable(), error
        else:
            assert decode_reply(request, encode_reply(reply)) == reply


def _request(data: bytes) -> None:
    """A stranger's request gets an answer of one line, and performs nothing but Exec."""
    answered = _Answerer()
    endpoint_of = Control(Path("/nowhere"), answered).endpoints[0]
    try:
        request: Any = parse.parse(data)
    except parse.BadRequest as error:
        assert str(error).isprintable(), error
        reply = encode_reply(parse.refusal(error))
        assert reply.endswith(b"\n") and reply.count(b"\n") == 1
        return
    assert parse.parse(encode_request(request)) == request
    answer = endpoint_of._answer(data, _STRANGER)
    if isinstance(answer, bytes):
        assert answer.endswith(b"\n") and answer.count(b"\n") == 1
    elif isinstance(answer, Wait):
        assert isinstance(request, Events), request
        assert request.wait_s and request.after == answered.last
        return
    else:
        answer.close()
        assert isinstance(request, Exec) or (isinstance(request, SetUplink) and request.token)
    assert answered.asked == [request] * isinstance(request, get_args(Query))


class _Answerer:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    last = 0
    control_token = "the-control-token"

    def token_refused(self, uid: int) -> None:
        raise AssertionError(uid)

    def read(self, query: Query) -> protocol.Reply:
        self.asked.append(query)
        raise HostError("nothing is known")

    async def perform(self, command: Command, peer: Peer) -> protocol.Reply:
        self.asked.append(command)
        return Confirmed()

"""What other DNS servers send us: responses to queries, UPDATEs and NOTIFYs; SVCB parameters.

An input's first byte tells the type of our query, and whether the head of our response precedes
what follows.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

from ifdefault.dns import client, svcb, wire
from ifdefault.frontend import requests
from ifdefault.frontend.client import query
from ifdefault.frontend.client.no_reply import NoReply
from ifdefault.frontend.client.signed import Request
from ifdefault.frontend.server.notify import NotifySender, Secondary
from ifdefault.ipc.messages import FROM_FRONTEND, Reply, decode, encode, printable
from tests.unit.dnszones import ZONE, asking, responder

KIND = "bytes"
ID = 4711
TYPES = tuple(client.TYPES)
_QUERIES = {kind: client.query(ID, ZONE, kind, recurse=True) for kind in TYPES}
_UPDATE = client.update(ID, ZONE, f"a.{ZONE}", 30, ["192.0.2.1"], ["2001:db8::1"])
_HINTS = ((bytes((192, 0, 2, 1)),), (bytes(15) + b"\1",))


def seeds() -> list[bytes]:
    server = responder()
    found = []
    for number, kind in enumerate(TYPES):
        for label in ("", "weighted", "alias", "nothing"):
            answer = server.udp(asking(label, kind).to_wire(), "192.0.2.7", "isp-a", 0.0)
            assert answer is not None
            question = len(client.query(ID, ZONE, kind, recurse=True, edns=False))
            found += [bytes((number,)) + answer, bytes((number | 8,)) + answer[question:]]
    found += [b"\4" + bytes((n,)) + b"\xa8" + bytes((n,)) + bytes(8) for n in (0, 5, 7, 9)]
    return [*found, b"\0\0\1\0\0\1\0\3\2h2\0\4\0\4\1\2\3\4"]


def one(data: bytes) -> None:
    kind = TYPES[data[0] & 3] if data else "A"
    request, message = _QUERIES[kind], data[1:]
    if data and data[0] & 8:
        count = bytes((0, data[0] >> 4))
        message = request[:2] + b"\x84\0\0\1" + count + request[10:12] + request[12:-11] + message
    _answer(kind, message, request)
    _refusal(message, request)
    _update(message)
    _notify(message)
    _svcb(message)


def _answer(kind: str, message: bytes, request: bytes) -> None:
    code = client.read_code(message, request)
    try:
        answer = client.read_answer(message, request)
    except wire.WireError as error:
        assert code is not None and str(error).isprintable()
        return
    assert (answer and answer.code) == code
    if answer is None:
        return
    assert message[:2] == request[:2] and wire.is_response(message)
    for text in answer.texts:
        assert text.isprintable() and text.isascii()
        if kind in ("A", "AAAA"):
            assert ip_address(text).version == {"A": 4, "AAAA": 6}[kind]
        if kind == "SOA":
            assert 0 <= int(text) < 1 << 32
    # the engine ends a frontend that sends anything but messages
    reply = requests.reply(1, query.Answer(answer.texts, answer.ttl))
    assert decode(encode(reply), FROM_FRONTEND) == [reply]


def _refusal(message: bytes, request: bytes) -> None:
    """Whatever a server refuses with is words that the channel takes."""
    for plain, read in ((request, client.read_code), (_UPDATE, client.read_update_code)):
        asked = Request(plain, "192.0.2.53", "")
        if code := read(message, plain):
            try:
                refusal = asked.refusal(code, message)
            except wire.WireError:
                continue
            text = printable(str(refusal))
            assert decode(encode(Reply(1, text)), FROM_FRONTEND) == [Reply(1, text)]
            assert str(refusal) == text


def _update(message: bytes) -> None:
    code = client.read_update_code(message, _UPDATE)
    assert code is None or 0 <= code < 16
    try:
        Request(_UPDATE, "192.0.2.53", "").verify(message)
    except (wire.WireError, NoReply) as error:
        assert str(error).isprintable()


class _Loop:
    """No time passes."""

    def call_later(self, *_: Any) -> Any:
        return self

    def cancel(self) -> None: ...


def _notify(message: bytes) -> None:
    reports: list[str] = []
    sender = NotifySender(lambda family: (), reports.append)
    running, asyncio.get_running_loop = asyncio.get_running_loop, _Loop  # type: ignore[assignment]
    try:
        sender.notify(Secondary("192.0.2.2", 53), ZONE, 7, ("isp-a",))
        sender.receive(message, "192.0.2.2")
    finally:
        asyncio.get_running_loop = running
    assert all(map(str.isprintable, reports))


def _svcb(rdata: bytes) -> None:
    target = svcb.target(b"\1x\0", rdata)
    if not target:
        return
    wire.decode_name(target)
    hinted = svcb.hinted(rdata, *_HINTS)
    assert len(hinted) == len(rdata) + 4 + 4 + 4 + 16
    assert svcb.target(b"\1x\0", hinted) == b"", "a record with hints gets none"

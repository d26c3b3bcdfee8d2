"""What web servers send us: answers to probes, and public addresses; what DNS providers' APIs list.

An input is a response, as received in pieces of the size that its first byte tells; or JSON, the
records that a provider lists, which begins with "[".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from ifdefault.frontend.client import http_get, provider
from ifdefault.frontend.probe import http
from ifdefault.frontend.probe.outcome import ProbeError
from ifdefault.ipc.messages import FROM_FRONTEND, Outcome, Reply, decode, encode, printable

KIND = "json"
_ADDRESSES, _OLD = ["192.0.2.1", "192.0.2.2"], ["192.0.2.3", "192.0.2.1"]
_LISTED = [
    {"id": 7, "type": "A", "name": "www.example.net", "ttl": 60, "content": "192.0.2.3"},
    {"id": "x", "content": "192.0.2.1"},
]


def seeds() -> list[bytes]:
    ok = b"HTTP/1.1 200 OK\r\nServer: x\r\n"
    responses = (
        ok + b"Content-Length: 13\r\n\r\n203.0.113.10\n",
        ok + b"\r\n2001:DB8:0::10",
        b"HTTP/1.0 200\r\n\r\n 203.0.113.10",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n<html>",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    )
    sized = [bytes((size,)) + response for response in responses for size in (0, 3, 255)]
    return [*sized, json.dumps(_LISTED).encode()]


def one(data: bytes) -> None:
    if data[:1] == b"[":
        _provider(data)
        return
    size = data[0] if data else 0
    pieces = [data[at : at + (size or 9999)] for at in range(1, len(data), size or 9999)]
    _address(data[1:], pieces)
    _status(pieces)


class _Stream:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces[::-1]

    async def receive(self) -> bytes:
        return self._pieces.pop()[: http.MOST_BYTES] if self._pieces else b""


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def _outcome(read: Callable[[], Any]) -> Any:
    """What is read, None for an error, which the channel takes."""
    try:
        return read()
    except ProbeError as error:
        wrong = error.outcome
        assert wrong.verdict == "wrong"
        outcome = Outcome(1, 1, wrong.verdict, wrong.rtt_us, printable(wrong.detail))
        assert decode(encode(outcome), FROM_FRONTEND) == [outcome]
        return None


def _address(response: bytes, pieces: list[bytes]) -> None:
    stream: Any = _Stream(pieces)
    whole = _outcome(lambda: _run(http_get._read_all(stream)))
    assert whole in (response, None)
    assert whole is None or len(whole) <= http.MOST_BYTES
    address = _outcome(lambda: http_get.read(response))
    if address is not None:
        assert decode(encode(Reply(1, "", (address,))), FROM_FRONTEND)


def _status(pieces: list[bytes]) -> None:
    stream: Any = _Stream(pieces)
    status = _outcome(lambda: _run(http._status(stream)))
    assert status is None or 200 <= status <= 999


class _Records:
    """A provider's API: it lists what the input says, and refuses what it doesn't like."""

    def __init__(self, listed: Any) -> None:
        self._listed = listed
        self.deleted: list[str] = []

    def list_records(self, rtype: str, name: str) -> Any:
        return self._listed

    def create_record(self, rtype: str, name: str, content: str) -> bool:
        return len(self._listed) % 3 > 0

    def delete_record(self, identifier: Any, rtype: str, name: str, content: str) -> bool:
        self.deleted.append(content)
        return True


def _provider(data: bytes) -> None:
    """Only records of ours are deleted, and what is said of it is one line."""
    try:
        listed = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(listed, list):
        return
    records = _Records(listed)
    try:
        problems = [*provider.update(records, "www.example.net", "A", _ADDRESSES, _OLD)]
    except Exception as error:  # noqa: BLE001  as provider.publish does
        problems = [str(error)]
    told = [provider._hide(problem, {"auth_token": "secret"}) for problem in problems]
    assert all("\n" not in text and "secret" not in text for text in told)
    assert {provider._canonical(text) for text in records.deleted} <= {"192.0.2.3"}

"""What engine and face say to each other: one JSON object a packet.

Rules: whoever reads believes nothing: types, ranges, lengths and alphabets are checked here, on
both sides, and every text is printable, so that none needs a second look in a log or a request.
What is not exactly a message is a BadMessage. Standard library alone: the face must stay small.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any, NoReturn, TypeVar, get_args

from ifdefault.model import FAMILIES, Family, ProbeKind
from ifdefault.vitals import Verdict

MAX_BYTES = 8192
DETAIL_CHARS = 200
MAX_ADDRESSES = 16


class BadMessage(Exception):
    """A packet that is no message, or a message that must not be sent."""


# --- engine to face -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bind:
    """A path's ICMP socket, which comes with it, in place of the one before."""

    path: int
    family: Family


@dataclass(frozen=True, slots=True)
class Unbind:
    """Forget a path, and what it still waits for."""

    path: int


@dataclass(frozen=True, slots=True)
class Send:
    """Ask once. `seq` is unique in its path. All kinds but icmp come with a socket of their own.

    `query`: http(s) the path, dns the name; `statuses` () is any below 400, as in `model.Probe`.
    """

    path: int
    seq: int
    kind: ProbeKind
    address: str
    port: int
    host: str
    query: str
    statuses: tuple[int, ...]
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Resolve:
    host: str


@dataclass(frozen=True, slots=True)
class Ping:
    token: int


# --- face to engine -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of one Send. After `lost` there may come an `answered`, if the answer was late."""

    path: int
    seq: int
    verdict: Verdict
    rtt_us: int = 0
    detail: str = ""  # for people


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name's addresses, both families, in the resolver's order; else why there are none."""

    host: str
    addresses: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Pong:
    token: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The face has given up its rights and listens."""

    pid: int


ToFace = Bind | Unbind | Send | Resolve | Ping
ToEngine = Outcome | Resolved | Pong | Ready
Message = ToFace | ToEngine
TO_FACE: tuple[type[ToFace], ...] = get_args(ToFace)
TO_ENGINE: tuple[type[ToEngine], ...] = get_args(ToEngine)
M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The packet of a message that the other side will take."""
    values = {name: getattr(message, name) for name in _FIELDS[type(message)]}
    _check(type(message), values)
    packet: bytes = _encode({"type": type(message).__name__, **values}).encode("ascii")
    return packet


def decode(packet: bytes, allowed: Collection[type[M]]) -> M:
    """The message in a packet; BadMessage unless it is a whole one, of a type that is allowed."""
    if len(packet) > MAX_BYTES:
        raise BadMessage(f"more than {MAX_BYTES} bytes")
    try:
        values = _decode(packet.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # RecursionError: brackets upon brackets
        raise BadMessage("not JSON") from error
    if type(values) is not dict:
        raise BadMessage("not an object")
    name = values.pop("type", None)
    kind = _KINDS.get(name) if type(name) is str else None
    if kind is None or kind not in allowed:
        raise BadMessage("of no known type")
    _check(kind, values)
    message: M = kind(**values)
    return message


def wants_socket(message: Message) -> bool:
    """Whether a socket comes with this message."""
    return isinstance(message, Bind) or (isinstance(message, Send) and message.kind != "icmp")


def printable(text: str, most: int = DETAIL_CHARS) -> str:
    """Make a text of any origin fit for a message: one line, nothing that a terminal obeys."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * most])
    return " ".join(shown.split())[:most]


# --- what each field may hold -------------------------------------------------------------

_Check = Callable[[Any], Any]  # returns the value as the message holds it, or raises ValueError


def _number(low: int, high: int) -> _Check:
    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:  # not isinstance: a bool is an int
            return value
        raise ValueError(f"not a number from {low} to {high}")

    return check


def _word(*words: Any) -> _Check:
    def check(value: Any) -> Any:
        if type(value) in (int, str) and value in words:
            return value
        raise ValueError("none of those that there are")

    return check


def _text(pattern: str) -> _Check:
    matches = re.compile(pattern).fullmatch

    def check(value: Any) -> str:
        if type(value) is str and matches(value):
            return value
        raise ValueError("not such a text")

    return check


def _telling(value: Any) -> str:
    if type(value) is str and len(value) <= DETAIL_CHARS and value.isprintable():
        return value
    raise ValueError(f"not a printable text of at most {DETAIL_CHARS} characters")


def _address(value: Any) -> str:
    if type(value) is str:
        family = socket.AF_INET6 if ":" in value else socket.AF_INET
        try:
            if socket.inet_ntop(family, socket.inet_pton(family, value)) == value:
                return value
        except (OSError, ValueError):  # ValueError: a NUL, or no ASCII
            pass
    raise ValueError("not an address in canonical form")


def _list(check: _Check, most: int) -> _Check:
    def check_all(values: Any) -> tuple[Any, ...]:
        if type(values) in (list, tuple) and len(values) <= most:
            return tuple([check(value) for value in values])
        raise ValueError(f"not a list of at most {most}")

    return check_all


_PATH, _COUNT = _number(0, (1 << 31) - 1), _number(0, (1 << 63) - 1)
_NAME = r"[A-Za-z0-9._:-]{1,253}"  # a name, or an address in either family
_FIELDS: dict[type, dict[str, _Check]] = {
    Bind: {"path": _PATH, "family": _word(*FAMILIES)},
    Unbind: {"path": _PATH},
    Send: {
        "path": _PATH,
        "seq": _COUNT,
        "kind": _word(*get_args(ProbeKind)),
        "address": _address,
        "port": _number(0, 65535),
        "host": _text(f"({_NAME})?"),
        "query": _text(r"[!-~]{0,1000}"),
        "statuses": _list(_number(100, 599), 500),
        "timeout_ms": _number(1, 60_000),
    },
    Resolve: {"host": _text(_NAME)},
    Ping: {"token": _COUNT},
    Outcome: {
        "path": _PATH,
        "seq": _COUNT,
        "verdict": _word(*get_args(Verdict)),
        "rtt_us": _number(0, 3_600_000_000),
        "detail": _telling,
    },
    Resolved: {
        "host": _text(_NAME),
        "addresses": _list(_address, MAX_ADDRESSES),
        "error": _telling,
    },
    Pong: {"token": _COUNT},
    Ready: {"pid": _number(1, (1 << 31) - 1)},
}
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in _FIELDS}
assert all([*checks] == [f.name for f in fields(kind)] for kind, checks in _FIELDS.items())


def _check(kind: type, values: dict[str, Any]) -> None:
    """Put each value into the form that the message holds it in; BadMessage if any has none."""
    checks = _FIELDS[kind]
    if values.keys() != checks.keys():
        raise BadMessage(f"{kind.__name__}: not exactly the fields {', '.join(checks)}")
    for name, check in checks.items():
        try:
            values[name] = check(values[name])
        except ValueError as error:
            raise BadMessage(f"{kind.__name__}.{name}: {error}") from None
    if kind is Send and (problem := _cross(**values)):
        raise BadMessage(f"Send: {problem}")


def _cross(kind: str, port: int, host: str, query: str, **_: Any) -> str:
    """What the fields of a Send say together that can't be."""
    if (kind == "icmp") != (port == 0):
        return f"{kind} with port {port}"
    if kind in ("http", "https") and not (host and query.startswith("/")):
        return f"{kind} without a host and a path"
    return ""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key that comes twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
_decode = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant).decode

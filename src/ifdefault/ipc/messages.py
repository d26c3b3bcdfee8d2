"""What engine and frontend say to each other: a packet is a JSON object, or a list of some.

Rules: whoever reads believes nothing: types, ranges, lengths and alphabets are checked as a packet
is read, on either side, and every text is printable, so that none needs a second look in a log or
a request. What is not exactly a message is a BadMessage. Standard library alone: the frontend must
stay small.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, NoReturn, TypeVar, get_args

from ifdefault.ipc.fields import (
    TEXT_CHARS,
    Check,
    address,
    hexadecimal,
    list_of,
    number,
    row,
    telling,
    text,
    word,
)
from ifdefault.model.config import FAMILIES, Family, ProbeKind
from ifdefault.model.dns import Policy
from ifdefault.model.health import Verdict

MAX_BYTES = 65536  # the largest that the config allows fits, which a test makes sure of
DETAIL_CHARS = TEXT_CHARS
MAX_ADDRESSES = 16
MAX_TOGETHER = 32  # messages in a packet
MAX_RDATA = 3500  # bytes of a name's static records together: they fit one packet
MAX_TEXTS = 64
Transport = Literal["udp", "tcp"]
Asked = Literal["A", "AAAA", "NS", "SOA"]


class BadMessage(Exception):
    """A packet that is no message, or a message that must not be sent."""


# --- what a field may hold ----------------------------------------------------------------

_PATH, _COUNT = number(0, (1 << 31) - 1), number(0, (1 << 63) - 1)
_NAME = r"[A-Za-z0-9._:-]{1,253}"  # a name, or an address in either family
_ADDRESS, _LABEL = address, text(r"[a-z0-9][a-z0-9-]{0,30}")  # of an uplink
_DOMAIN = text(r"(?:(?:\*|[a-z0-9_-]{1,63})(?:\.[a-z0-9_-]{1,63})*)?")  # "" is the root
_FILE = text(r"(?:/[^\0\n]{1,254})?")
_MARK = number(0, (1 << 32) - 1)
_HOST, _PATHNAME = text(_NAME), text(r"/[!-~]{0,1000}")
_WEIGHT, _TYPE = number(1, 1000), number(1, 65535)
_PORT, _TTL = number(1, 65535), number(1, (1 << 31) - 1)


def held(check: Check, default: Any = MISSING) -> Any:
    """A field whose value passed a check."""
    return field(default=default, metadata={"check": check})


# --- engine to frontend -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bind:
    """A path's ICMP socket, which comes with it, in place of the one before."""

    path: int = held(_PATH)
    family: Family = held(word(*FAMILIES))


@dataclass(frozen=True, slots=True)
class Unbind:
    """Forget a path, and what it still waits for."""

    path: int = held(_PATH)


@dataclass(frozen=True, slots=True)
class Send:
    """Ask once. `seq` is unique in its path. All kinds but icmp come with a socket of their own.

    `query`: http(s) the path, dns the name; `statuses` () is any below 400, as in `model.Probe`.
    """

    path: int = held(_PATH)
    seq: int = held(_COUNT)
    kind: ProbeKind = held(word(*get_args(ProbeKind)))
    address: str = held(_ADDRESS)
    port: int = held(number(0, 65535))
    host: str = held(text(f"({_NAME})?"))
    query: str = held(text(r"[!-~]{0,1000}"))
    statuses: tuple[int, ...] = held(list_of(number(100, 599), 500))
    timeout_ms: int = held(number(1, 60_000))


@dataclass(frozen=True, slots=True)
class Resolve:
    host: str = held(_HOST)


@dataclass(frozen=True, slots=True)
class Ping:
    token: int = held(_COUNT)


@dataclass(frozen=True, slots=True)
class Listen:
    """Answer DNS on a socket, which comes with it: one for each address and transport. `arrivals`
    tell by which uplink a packet with a mark came; mark 0 is any."""

    number: int = held(_PATH)
    transport: Transport = held(word(*get_args(Transport)))
    address: str = held(_ADDRESS)
    arrivals: tuple[tuple[int, str], ...] = held(list_of(row(_MARK, _LABEL), 31))


@dataclass(frozen=True, slots=True)
class Unlisten:
    number: int = held(_PATH)


@dataclass(frozen=True, slots=True)
class ZoneHead:
    """A zone of the set that is being told; its names follow, as ZoneName, and at last ZoneEnd."""

    zone: str = held(_DOMAIN)
    serial: int = held(_MARK)
    contact: str = held(_DOMAIN)
    nameservers: tuple[str, ...] = held(list_of(_DOMAIN, MAX_TEXTS))


@dataclass(frozen=True, slots=True)
class ZoneName:
    """A name of the zone that was told last. `addresses`: uplink, address, weight; `records`: type
    and RDATA. See zones.Published."""

    name: str = held(_DOMAIN)
    policy: Policy = held(word(*get_args(Policy)))
    ttl: int = held(_TTL)
    addresses: tuple[tuple[str, str, int], ...] = held(
        list_of(row(_LABEL, _ADDRESS, _WEIGHT), MAX_TEXTS)
    )
    records: tuple[tuple[int, str], ...] = held(
        list_of(row(_TYPE, hexadecimal(MAX_RDATA)), MAX_TEXTS)
    )


@dataclass(frozen=True, slots=True)
class ZoneEnd:
    """All zones are told: answer by them from now on, and by nothing told before. `secondaries`:
    address, port, key file; `rate_limit` as in zones.ServerConfig."""

    secondaries: tuple[tuple[str, int, str], ...] = held(
        list_of(row(_ADDRESS, _PORT, _FILE), MAX_TEXTS)
    )
    rate_limit: int = held(number(0, 1_000_000))


@dataclass(frozen=True, slots=True)
class Update:
    """Change a name's addresses at a server (RFC 2136), over the TCP socket that comes with it:
    `remove` those, `add` these. `key` is the path of a TSIG key, "" for none."""

    number: int = held(_COUNT)
    address: str = held(_ADDRESS)
    port: int = held(_PORT)
    key: str = held(_FILE)
    zone: str = held(_DOMAIN)
    name: str = held(_DOMAIN)
    ttl: int = held(_TTL)
    add: tuple[str, ...] = held(list_of(_ADDRESS, MAX_TEXTS))
    remove: tuple[str, ...] = held(list_of(_ADDRESS, MAX_TEXTS))


@dataclass(frozen=True, slots=True)
class Query:
    """Ask a DNS server, over the UDP socket that comes with it; Reply tells what it said."""

    number: int = held(_COUNT)
    address: str = held(_ADDRESS)
    port: int = held(_PORT)
    name: str = held(_DOMAIN)
    wanted: Asked = held(word(*get_args(Asked)))
    recurse: bool = held(word(False, True))


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask a web server for a text that is an address, over the TCP socket that comes with it."""

    number: int = held(_COUNT)
    address: str = held(_ADDRESS)
    port: int = held(_PORT)
    host: str = held(_HOST)
    path: str = held(_PATHNAME)
    secure: bool = held(word(False, True))


# --- frontend to engine -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of one Send. After `lost` there may come an `answered`, if the answer was late."""

    path: int = held(_PATH)
    seq: int = held(_COUNT)
    verdict: Verdict = held(word(*get_args(Verdict)))
    rtt_us: int = held(number(0, 3_600_000_000), 0)
    detail: str = held(telling, "")  # for people


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name's addresses, both families, in the resolver's order; else why there are none."""

    host: str = held(_HOST)
    addresses: tuple[str, ...] = held(list_of(_ADDRESS, MAX_ADDRESSES))
    error: str = held(telling, "")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of an Update, a Query or a Fetch. `error` "" is success; else whose word it is is
    in it. `texts`: addresses, names of servers, or a serial, as was asked for; `ttl` the least."""

    number: int = held(_COUNT)
    error: str = held(telling)
    texts: tuple[str, ...] = held(list_of(text(r"[!-~]{1,255}"), MAX_TEXTS), ())
    ttl: int = held(_MARK, 0)


@dataclass(frozen=True, slots=True)
class Served:
    """How many queries were answered since the last Served, by uplink; and a secondary's word on
    a NOTIFY, or what it did, a line each, for the event log."""

    queries: tuple[tuple[str, int], ...] = held(list_of(row(_LABEL, _COUNT), 31))
    events: tuple[str, ...] = held(list_of(telling, 16))


@dataclass(frozen=True, slots=True)
class Pong:
    token: int = held(_COUNT)


@dataclass(frozen=True, slots=True)
class Ready:
    """The frontend has given up its rights and listens."""

    pid: int = held(number(1, (1 << 31) - 1))


ToFrontend = (
    Bind
    | Unbind
    | Send
    | Resolve
    | Ping
    | Listen
    | Unlisten
    | ZoneHead
    | ZoneName
    | ZoneEnd
    | Update
    | Query
    | Fetch
)
ToEngine = Outcome | Resolved | Reply | Served | Pong | Ready
Message = ToFrontend | ToEngine
TO_FRONTEND: tuple[type[ToFrontend], ...] = get_args(ToFrontend)
TO_ENGINE: tuple[type[ToEngine], ...] = get_args(ToEngine)
M = TypeVar("M", bound=Message)


def encode(*messages: Message) -> bytes:
    """The packet of some messages. Whether they are sound is for the other side to say."""
    told = [_told(message) for message in messages]
    packet: bytes = _encode(told if len(told) > 1 else told[0]).encode("ascii")
    if len(packet) > MAX_BYTES:
        raise BadMessage(f"{type(messages[0]).__name__}: more than {MAX_BYTES} bytes")
    return packet


def _told(message: Message) -> dict[str, Any]:
    kind = type(message)
    return {"type": kind.__name__, **{name: getattr(message, name) for name in _CHECKS[kind]}}


def decode(packet: bytes, allowed: Collection[type[M]]) -> list[M]:
    """The messages in a packet; BadMessage unless all are whole ones, of types that are allowed."""
    if len(packet) > MAX_BYTES:
        raise BadMessage(f"more than {MAX_BYTES} bytes")
    try:
        told = _decode(packet.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # RecursionError: brackets upon brackets
        raise BadMessage("not JSON") from error
    each = told if type(told) is list else [told]
    if not 0 < len(each) <= MAX_TOGETHER:
        raise BadMessage(f"not 1 to {MAX_TOGETHER} messages")
    return [_message(values, allowed) for values in each]


def _message(values: Any, allowed: Collection[type[M]]) -> M:
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
    alone = isinstance(message, Bind | Listen | Update | Query | Fetch)
    return alone or (isinstance(message, Send) and message.kind != "icmp")


def printable(text: str, most: int = DETAIL_CHARS) -> str:
    """Make a text of any origin fit for a message: one line, nothing that a terminal obeys."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * most])
    return " ".join(shown.split())[:most]


_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*TO_FRONTEND, *TO_ENGINE)}
_CHECKS: dict[type, dict[str, Check]] = {
    kind: {each.name: each.metadata["check"] for each in fields(kind)} for kind in _KINDS.values()
}


def _check(kind: type, values: dict[str, Any]) -> None:
    """Put each value into the form that the message holds it in; BadMessage if any has none."""
    checks = _CHECKS[kind]
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

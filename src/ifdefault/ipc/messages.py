"""The messages between engine, frontend and DNS server: a packet is a JSON object, or a list of
objects.

Rules: both sides validate what they read: types, ranges, lengths and characters. All texts are
printable, so they are safe to log and to use in requests. Anything that isn't exactly a message is
a BadMessage. Only the standard library is used, to keep the frontend small.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args
from zlib import crc32

from ifdefault import __version__
from ifdefault.ipc import codec
from ifdefault.ipc.codec import DecodeError, Most
from ifdefault.ipc.fields import TEXT_CHARS, address, hexadecimal, number, printable_text, text
from ifdefault.model.config import Family, ProbeKind
from ifdefault.model.dns import Policy
from ifdefault.model.health import Verdict

MAX_BYTES = 65536  # enough for the largest message that the config allows, as a test checks
DETAIL_CHARS = TEXT_CHARS
MAX_ADDRESSES = 16
MAX_TOGETHER = 32  # messages in a packet
MAX_RDATA = 3500  # bytes of all static records of a name, so that they fit into one packet
MAX_TEXTS = 64
Transport = Literal["udp", "tcp"]
Asked = Literal["A", "AAAA", "NS", "SOA"]


class BadMessage(Exception):
    """An invalid packet, or a message that must not be sent."""


# --- field types --------------------------------------------------------------------------

_NAME = r"[A-Za-z0-9._:-]{1,253}"  # a name, or an address in either family
_Path = Annotated[int, number(0, (1 << 31) - 1)]
_Count = Annotated[int, number(0, (1 << 63) - 1)]
_Mark = Annotated[int, number(0, (1 << 32) - 1)]
_Port = Annotated[int, number(1, 65535)]
_Ttl = Annotated[int, number(1, (1 << 31) - 1)]
_Weight = Annotated[int, number(1, 8000)]  # eighths, while a line fills up
_Type = Annotated[int, number(1, 65535)]
_Status = Annotated[int, number(100, 599)]
_Address = Annotated[str, address]
_Code = Annotated[int, number(0, 15)]  # in a DNS response's header
_Label = Annotated[str, text(r"[a-z0-9][a-z0-9-]{0,30}")]  # of an uplink
_Domain = Annotated[str, text(r"(?:(?:\*|[a-z0-9_-]{1,63})(?:\.[a-z0-9_-]{1,63})*)?")]  # "": root
_File = Annotated[str, text(r"(?:/[^\0\n]{1,254})?")]
_Host = Annotated[str, text(_NAME)]
_Secret = Annotated[str, text(r"[0-9a-f]{32}")]
_Rdata = Annotated[str, hexadecimal(MAX_RDATA)]
_Word = Annotated[str, text(r"[!-~]{1,255}")]
_Text = Annotated[str, printable_text]  # for display
_Texts, _Uplinks = Most(MAX_TEXTS), Most(31)


# --- engine to frontend, and to DNS server ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bind:
    """Use this ICMP socket, which comes with the message, for a path from now on."""

    path: _Path
    family: Family


@dataclass(frozen=True, slots=True)
class Unbind:
    """Close a path's socket, and drop the probes that are under way."""

    path: _Path


@dataclass(frozen=True, slots=True)
class Send:
    """Send one probe. `seq` is unique in its path. All kinds but icmp come with their own socket.

    `query`: for http(s) the path, for dns the name. `statuses`: as in `model.config.Probe`.
    """

    path: _Path
    seq: _Count
    kind: ProbeKind
    address: _Address
    port: Annotated[int, number(0, 65535)]
    host: Annotated[str, text(f"({_NAME})?")]
    query: Annotated[str, text(r"[!-~]{0,1000}")]
    statuses: Annotated[tuple[_Status, ...], Most(500)]
    timeout_ms: Annotated[int, number(1, 60_000)]


@dataclass(frozen=True, slots=True)
class Resolve:
    host: _Host


@dataclass(frozen=True, slots=True)
class Ping:
    token: _Count


@dataclass(frozen=True, slots=True)
class Listen:
    """Answer DNS queries on this socket, which comes with the message: one for each address and
    transport. `arrivals`: arrival marks and uplinks; mark 0 matches any packet.

    The DNS server sends the same of each socket that it has, before Ready. Other versions read
    that, so neither message may change.
    """

    number: _Path
    transport: Transport
    address: _Address
    arrivals: Annotated[tuple[tuple[_Mark, _Label], ...], _Uplinks]


@dataclass(frozen=True, slots=True)
class Unlisten:
    number: _Path


@dataclass(frozen=True, slots=True)
class ZoneHead:
    """The first message of a zone; its names follow, as ZoneName. ZoneEnd completes all zones."""

    zone: _Domain
    serial: _Mark
    contact: _Domain
    nameservers: Annotated[tuple[_Domain, ...], _Texts]


@dataclass(frozen=True, slots=True)
class ZoneName:
    """A name of the last zone. `addresses`: uplink, address, weight; `records`: type and RDATA. See
    `model.dns.Published`."""

    name: _Domain
    policy: Policy
    ttl: _Ttl
    addresses: Annotated[tuple[tuple[_Label, _Address, _Weight], ...], _Texts]
    records: Annotated[tuple[tuple[_Type, _Rdata], ...], _Texts]


@dataclass(frozen=True, slots=True)
class ZoneEnd:
    """All zones were sent: serve these, and only these, from now on. `secondaries`: address, port,
    key file; `rate_limit`: as in `model.dns.ServerConfig`; `cookie_secrets`: the current one, and
    the one before."""

    secondaries: Annotated[tuple[tuple[_Address, _Port, _File], ...], _Texts]
    rate_limit: Annotated[int, number(0, 1_000_000)]
    cookie_secrets: Annotated[tuple[_Secret, ...], Most(2)]


@dataclass(frozen=True, slots=True)
class Leave:
    """The engine ends: go on answering without one for so long; 0: end now."""

    linger_s: Annotated[int, number(0, 3600)]


@dataclass(frozen=True, slots=True)
class Update:
    """Change a name's addresses at a server (RFC 2136), over the TCP socket that comes with it.
    `key`: the path of a TSIG key file, "" for none."""

    number: _Count
    address: _Address
    port: _Port
    key: _File
    zone: _Domain
    name: _Domain
    ttl: _Ttl
    add: Annotated[tuple[_Address, ...], _Texts]
    remove: Annotated[tuple[_Address, ...], _Texts]


@dataclass(frozen=True, slots=True)
class Query:
    """Query a DNS server, over the UDP socket that comes with it. `key`: as in Update."""

    number: _Count
    address: _Address
    port: _Port
    key: _File
    name: _Domain
    wanted: Asked
    recurse: bool


@dataclass(frozen=True, slots=True)
class Fetch:
    """GET an address, as text, from a web server, over the TCP socket that comes with it."""

    number: _Count
    address: _Address
    port: _Port
    host: _Host
    path: Annotated[str, text(r"/[!-~]{0,1000}")]
    secure: bool


# --- to the engine ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one Send. After "lost", "answered" may follow if the answer was late."""

    path: _Path
    seq: _Count
    verdict: Verdict
    rtt_us: Annotated[int, number(0, 3_600_000_000)] = 0
    detail: _Text = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name's addresses, of both families, in the resolver's order; or why there are none."""

    host: _Host
    addresses: Annotated[tuple[_Address, ...], Most(MAX_ADDRESSES)]
    error: _Text = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of an Update, a Query or a Fetch. `error`: "" is success; otherwise it names who
    reports it. `texts`: addresses, server names or a serial, as requested; `ttl`: the lowest."""

    number: _Count
    error: _Text
    texts: Annotated[tuple[_Word, ...], _Texts] = ()
    ttl: _Mark = 0


@dataclass(frozen=True, slots=True)
class Served:
    """Queries answered since the last Served, by uplink and response code; and what secondaries did
    or replied to a NOTIFY, one line each for the event log."""

    queries: Annotated[tuple[tuple[_Label, _Code, _Count], ...], Most(31 * 16)]
    events: Annotated[tuple[_Text, ...], Most(16)]


@dataclass(frozen=True, slots=True)
class Pong:
    token: _Count


@dataclass(frozen=True, slots=True)
class Ready:
    """The process has dropped its privileges and reads messages."""

    pid: Annotated[int, number(1, (1 << 31) - 1)]
    version: Annotated[str, text(r"[!-~]{1,64}")]


@dataclass(frozen=True, slots=True)
class Unconfined:
    """What the frontend isn't confined by, since this host can't do it, and why."""

    missing: Annotated[tuple[_Text, ...], Most(2)]


ToFrontend = Bind | Unbind | Send | Resolve | Ping | Update | Query | Fetch
FromFrontend = Outcome | Resolved | Reply | Pong | Ready | Unconfined
ToDnsServer = Listen | Unlisten | ZoneHead | ZoneName | ZoneEnd | Ping | Leave
FromDnsServer = Listen | Served | Pong | Ready
Message = ToFrontend | FromFrontend | ToDnsServer | FromDnsServer
TO_FRONTEND: tuple[type[ToFrontend], ...] = get_args(ToFrontend)
FROM_FRONTEND: tuple[type[FromFrontend], ...] = get_args(FromFrontend)
TO_DNS_SERVER: tuple[type[ToDnsServer], ...] = get_args(ToDnsServer)
FROM_DNS_SERVER: tuple[type[FromDnsServer], ...] = get_args(FromDnsServer)
M = TypeVar("M", bound=Message)


def version_of(kinds: Collection[type[Message]]) -> str:
    """This version, with a digest of messages: builds of one version may differ in them."""
    shape = repr([(kind.__name__, [(f.name, f.type) for f in fields(kind)]) for kind in kinds])
    return f"{__version__}+{crc32(shape.encode()):08x}"


DNS_VERSION = version_of((*TO_DNS_SERVER, *FROM_DNS_SERVER))


def encode(*messages: Message) -> bytes:
    """Messages as one packet. They are validated by the receiver."""
    values = [_encode(message) for message in messages]
    packet = codec.write(values if len(values) > 1 else values[0])
    if len(packet) > MAX_BYTES:
        raise BadMessage(f"{type(messages[0]).__name__}: more than {MAX_BYTES} bytes")
    return packet


def decode(packet: bytes, allowed: Collection[type[M]]) -> list[M]:
    """The messages in a packet; BadMessage unless all are valid and of allowed types."""
    if len(packet) > MAX_BYTES:
        raise BadMessage(f"more than {MAX_BYTES} bytes")
    try:
        value = codec.read(packet)
        values = value if type(value) is list else [value]
        if not 0 < len(values) <= MAX_TOGETHER:
            raise BadMessage(f"not 1 to {MAX_TOGETHER} messages")
        read = _decoder(cast(Any, allowed))
        messages: list[M] = [read(each) for each in values]
    except DecodeError as error:
        raise BadMessage(str(error)) from error
    for message in messages:
        if isinstance(message, Send) and (problem := _contradiction(message)):
            raise BadMessage(f"Send: {problem}")
    return messages


@cache
def _decoder(allowed: Collection[Any]) -> codec.Decode:
    return codec.tagged(allowed, strict=True)


def wants_socket(message: Message) -> bool:
    """Whether a socket comes with this message."""
    alone = isinstance(message, Bind | Listen | Update | Query | Fetch)
    return alone or (isinstance(message, Send) and message.kind != "icmp")


def printable(text: str, max_chars: int = DETAIL_CHARS) -> str:
    """Make a text of any origin fit for a message: one line, without control characters."""
    cleaned = "".join(c if c.isprintable() else " " for c in text[: 4 * max_chars])
    return " ".join(cleaned.split())[:max_chars]


def _contradiction(send: Send) -> str:
    """Which fields of a Send contradict each other, "" if none do."""
    if (send.kind == "icmp") != (send.port == 0):
        return f"{send.kind} with port {send.port}"
    if send.kind in ("http", "https") and not (send.host and send.query.startswith("/")):
        return f"{send.kind} without a host and a path"
    return ""


_encode = codec.encoder(Message)

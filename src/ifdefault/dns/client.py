"""A client's messages: a query (RFC 1035), an UPDATE (RFC 2136), and what the answers say.

Rules: pure: bytes come in and go out. What isn't the answer to what was asked is None: anybody may
send packets. Whatever else is wrong with it is a BadWire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ifdefault.dns import wire
from ifdefault.model.address import family_of

TYPES: Final = {"A": wire.A, "AAAA": wire.AAAA, "NS": wire.NS, "SOA": wire.SOA}
YXRRSET = 7
_CODES = (
    "NOERROR FORMERR SERVFAIL NXDOMAIN NOTIMP REFUSED YXDOMAIN YXRRSET NXRRSET NOTAUTH NOTZONE"
).split()
_UPDATE = 5 << 11  # the opcode, in a header's flags
_NONE = 254  # the class of what isn't there, or is to go
_CODE = 15  # the response code, in a header's flags
_EDNS_BYTES = 1232  # what passes everywhere in one piece
_OPT = wire.ROOT + wire.FIXED.pack(wire.OPT, _EDNS_BYTES, 0, 0)
_SERIAL_AT = -20  # in an SOA's data


def code_name(code: int) -> str:
    return _CODES[code] if code < len(_CODES) else f"RCODE {code}"


# --- a query ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """`texts`: addresses, names of servers, or a serial, as was asked for; `ttl` their least."""

    code: int
    authoritative: bool
    truncated: bool
    texts: tuple[str, ...] = ()
    ttl: int = 0


def query(number: int, name: str, wanted: str, *, recurse: bool, edns: bool = True) -> bytes:
    """Ask for one of TYPES."""
    head = wire.HEADER.pack(number, wire.RD if recurse else 0, 1, 0, 0, edns)
    question = wire.encode_name(name) + wire.TWO.pack(TYPES[wanted], wire.IN)
    return head + question + (_OPT if edns else b"")


def read_code(message: bytes, asked: bytes) -> int | None:
    """The code of a response to a query."""
    if (flags := _flags(message, asked)) is None:
        return None
    code, question = flags & _CODE, _question(asked)
    questions = int.from_bytes(message[4:6], "big")
    if questions == 0 and code:  # who can't read a question, or won't, may leave it out
        return code
    there = message[wire.HEADER.size :][: len(question)]
    # names are compared without regard to case; length bytes and types here are below letters
    return code if questions == 1 and there.lower() == question.lower() else None


def read_answer(message: bytes, asked: bytes) -> Response | None:
    """What a server says to a query. CNAMEs in it were followed by the server."""
    if (code := read_code(message, asked)) is None:
        return None
    _, flags, questions, answers, _, _ = wire.HEADER.unpack_from(message)
    if questions == 0:
        return Response(code, False, False)
    question = _question(asked)
    at = wire.HEADER.size + len(question)
    kind, _ = wire.TWO.unpack_from(question, len(question) - wire.TWO.size)
    texts: dict[str, None] = {}
    least = None
    for _ in range(answers):
        _, its, class_, ttl, rdata, at = wire.read_record(message, at)
        if (its, class_) == (kind, wire.IN):
            texts[_text(kind, message, rdata, at)] = None
            least = ttl if least is None else min(ttl, least)
    authoritative, truncated = bool(flags & wire.AA), bool(flags & wire.TC)
    return Response(code, authoritative, truncated, tuple(texts), least or 0)


def _question(asked: bytes) -> bytes:
    _, end = wire.read_name(asked, wire.HEADER.size)
    return asked[wire.HEADER.size : end + wire.TWO.size]


def _text(kind: int, message: bytes, rdata: bytes, end: int) -> str:
    if kind in (wire.A, wire.AAAA):
        if len(rdata) != (4 if kind == wire.A else 16):
            raise wire.BadWire("no address")
        return str(ip_address(rdata))
    if kind == wire.NS:
        return wire.decode_name(message, end - len(rdata))[0]
    if len(rdata) < -_SERIAL_AT + 2:
        raise wire.BadWire("no SOA")
    return str(int.from_bytes(rdata[_SERIAL_AT : _SERIAL_AT + 4], "big"))


# --- an UPDATE ----------------------------------------------------------------------------


def update(
    number: int, zone: str, name: str, ttl: int, add: Sequence[str], remove: Sequence[str]
) -> bytes:
    """Remove these addresses of a name, and add those, unless it is a CNAME (YXRRSET then)."""
    owner = wire.encode_name(name)
    no_cname = owner + wire.FIXED.pack(wire.CNAME, _NONE, 0, 0)  # RFC 2136, 2.4.3
    changes = [_change(owner, _NONE, 0, address) for address in remove]  # 2.5.4
    changes += [_change(owner, wire.IN, ttl, address) for address in add]  # 2.5.1
    head = wire.HEADER.pack(number, _UPDATE, 1, 1, len(changes), 0)
    where = wire.encode_name(zone) + wire.TWO.pack(wire.SOA, wire.IN)
    return head + where + no_cname + b"".join(changes)


def _change(owner: bytes, class_: int, ttl: int, address: str) -> bytes:
    kind = wire.AAAA if family_of(address) == 6 else wire.A
    rdata = ip_address(address).packed
    return owner + wire.FIXED.pack(kind, class_, ttl, len(rdata)) + rdata


def read_update_code(message: bytes, asked: bytes) -> int | None:
    """The code of the answer to an UPDATE."""
    flags = _flags(message, asked)
    return None if flags is None else flags & _CODE


def _flags(message: bytes, asked: bytes) -> int | None:
    """Those of the answer's header."""
    if len(message) < wire.HEADER.size or message[:2] != asked[:2]:
        return None
    flags = int.from_bytes(message[2:4], "big")
    opcode = int.from_bytes(asked[2:4], "big") & wire.OPCODE
    return flags if flags & wire.QR and flags & wire.OPCODE == opcode else None

"""A DNS client's messages: queries (RFC 1035), UPDATEs (RFC 2136), and their responses.

Rules: pure; messages are bytes. A message that isn't a response to the request is read as None,
since anyone may send packets. Other malformed messages raise WireError.
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
_NONE = 254  # class NONE (RFC 2136)
_CODE = 15  # the response code, in a header's flags
_EDNS_BYTES = 1232  # avoids fragmentation (DNS flag day 2020)
_OPT = wire.ROOT + wire.FIXED.pack(wire.OPT, _EDNS_BYTES, 0, 0)
_SERIAL_AT = -20  # offset in an SOA's data


def code_name(code: int) -> str:
    return _CODES[code] if code < len(_CODES) else f"RCODE {code}"


# --- a query ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """`texts`: addresses, names of servers, or a serial, by the query's type; `ttl`: the least."""

    code: int
    authoritative: bool
    truncated: bool
    texts: tuple[str, ...] = ()
    ttl: int = 0


def query(number: int, name: str, wanted: str, *, recurse: bool, edns: bool = True) -> bytes:
    """A query for one of TYPES."""
    head = wire.HEADER.pack(number, wire.RD if recurse else 0, 1, 0, 0, edns)
    question = wire.encode_name(name) + wire.TWO.pack(TYPES[wanted], wire.IN)
    return head + question + (_OPT if edns else b"")


def mix_case(query: bytes, bits: int) -> bytes:
    """The query with each letter of its name in the case that a bit says. Servers copy that into
    their responses (draft-vixie-dnsext-dns0x20)."""
    start = wire.HEADER.size
    _, end = wire.read_name(query, start)
    name = bytes(  # the bytes of lengths are no letters
        byte ^ 0x20 if bits >> at & 1 and bytes((byte,)).isalpha() else byte
        for at, byte in enumerate(query[start:end])
    )
    return query[:start] + name + query[end:]


def read_code(message: bytes, request: bytes) -> int | None:
    """The response code of a response to a query; None if it isn't one. The letter case of the
    name counts if the query has any upper case."""
    if (flags := _flags(message, request)) is None:
        return None
    code, question = flags & _CODE, _question(request)
    questions = int.from_bytes(message[4:6], "big")
    if questions == 0 and code:  # an error response may omit the question
        return code
    copied = message[wire.HEADER.size :][: len(question)]
    if question.islower():  # lower() doesn't change length bytes and these types
        copied = copied.lower()
    return code if questions == 1 and copied == question else None


def read_answer(message: bytes, request: bytes) -> Response | None:
    """A response to a query; None if it isn't one. The server has followed CNAMEs."""
    if (code := read_code(message, request)) is None:
        return None
    _, flags, questions, answers, _, _ = wire.HEADER.unpack_from(message)
    if questions == 0:
        return Response(code, False, False)
    question = _question(request)
    at = wire.HEADER.size + len(question)
    kind, _ = wire.TWO.unpack_from(question, len(question) - wire.TWO.size)
    texts: dict[str, None] = {}
    min_ttl = None
    for _ in range(answers):
        _, record_kind, class_, ttl, rdata, at = wire.read_record(message, at)
        if (record_kind, class_) == (kind, wire.IN):
            texts[_text(kind, message, rdata, at)] = None
            min_ttl = ttl if min_ttl is None else min(ttl, min_ttl)
    authoritative, truncated = bool(flags & wire.AA), bool(flags & wire.TC)
    return Response(code, authoritative, truncated, tuple(texts), min_ttl or 0)


def _question(request: bytes) -> bytes:
    """In the request's letter case."""
    _, end = wire.read_name(request, wire.HEADER.size)
    return request[wire.HEADER.size : end + wire.TWO.size]


def _text(kind: int, message: bytes, rdata: bytes, end: int) -> str:
    if kind in (wire.A, wire.AAAA):
        if len(rdata) != (4 if kind == wire.A else 16):
            raise wire.WireError("no address")
        return str(ip_address(rdata))
    if kind == wire.NS:
        return wire.decode_name(message, end - len(rdata))[0]
    if len(rdata) < -_SERIAL_AT + 2:
        raise wire.WireError("no SOA")
    return str(int.from_bytes(rdata[_SERIAL_AT : _SERIAL_AT + 4], "big"))


# --- an UPDATE ----------------------------------------------------------------------------


def update(
    number: int, zone: str, name: str, ttl: int, add: Sequence[str], remove: Sequence[str]
) -> bytes:
    """An UPDATE that removes and adds addresses of a name, unless the name is a CNAME (YXRRSET)."""
    owner = wire.encode_name(name)
    no_cname = owner + wire.FIXED.pack(wire.CNAME, _NONE, 0, 0)  # RFC 2136, 2.4.3
    changes = [_change(owner, _NONE, 0, address) for address in remove]  # 2.5.4
    changes += [_change(owner, wire.IN, ttl, address) for address in add]  # 2.5.1
    head = wire.HEADER.pack(number, _UPDATE, 1, 1, len(changes), 0)
    zone_section = wire.encode_name(zone) + wire.TWO.pack(wire.SOA, wire.IN)
    return head + zone_section + no_cname + b"".join(changes)


def _change(owner: bytes, class_: int, ttl: int, address: str) -> bytes:
    kind = wire.AAAA if family_of(address) == 6 else wire.A
    rdata = ip_address(address).packed
    return owner + wire.FIXED.pack(kind, class_, ttl, len(rdata)) + rdata


def read_update_code(message: bytes, request: bytes) -> int | None:
    """The response code of a response to an UPDATE; None if it isn't one."""
    flags = _flags(message, request)
    return None if flags is None else flags & _CODE


def _flags(message: bytes, request: bytes) -> int | None:
    """The flags of a response; None if it isn't a response to `request`."""
    if len(message) < wire.HEADER.size or message[:2] != request[:2]:
        return None
    flags = int.from_bytes(message[2:4], "big")
    opcode = int.from_bytes(request[2:4], "big") & wire.OPCODE
    return flags if flags & wire.QR and flags & wire.OPCODE == opcode else None

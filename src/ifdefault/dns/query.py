"""Parse queries.

Rules: a query is parsed to its last byte before any of it is used; errors set `fault`, and never
raise an exception. Strict like Knot and NSD: compression pointers in the question, data after the
last record, answers in a query, and a second OPT, or one with an owner, are faults. So are more
records than any query has: reading them would take long.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.dns import wire

COOKIE = 10  # an EDNS option
CLIENT_COOKIE, COOKIE_MIN, COOKIE_MAX = 8, 16, 40  # bytes (RFC 7873, 4)
_DO = 0x8000
_RECORDS_MAX = 8  # with the question; a signed IXFR has 4
_TSIG_TIMES = 10  # bytes of time, fudge and MAC length, after the algorithm


@dataclass(frozen=True, slots=True)
class Edns:
    """An OPT record (RFC 6891). `cookie` b"": none."""

    size: int
    version: int
    wants_dnssec: bool
    cookie: bytes = b""


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A query. `question`: its bytes, b"" if it is missing or malformed; `name`: in lower case;
    `serial`: the client's, in IXFR; `refusal`: the TSIG record of a response that rejects the
    query's TSIG; `fault`: the response code of an error."""

    flags: int
    name: bytes = b""
    type: int = 0
    class_: int = 0
    question: bytes = b""
    edns: Edns | None = None
    serial: int | None = None
    refusal: bytes = b""
    fault: int = wire.NOERROR

    @property
    def opcode(self) -> int:
        return (self.flags & wire.OPCODE) >> 11


def parse(message: bytes) -> ParsedQuery | None:
    """The query; None if the header is incomplete, or the message is a response."""
    if len(message) < wire.HEADER.size:
        return None
    _, flags, questions, answers, authorities, others = wire.HEADER.unpack_from(message)
    if flags & wire.QR:
        return None
    if flags & wire.OPCODE:  # the meaning of the sections is unknown
        return ParsedQuery(flags, edns=_find_edns(message))
    name, kind, class_, end = b"", 0, 0, wire.HEADER.size
    question = b""
    try:
        if questions > 1:
            raise wire.WireError("more than one question")
        if questions:
            name, kind, class_, end = _question(message)
            question = message[wire.HEADER.size : end]
        if answers or (authorities and kind != wire.IXFR):
            raise wire.WireError("an answer in a query")
        if has_too_many_records(message):
            raise wire.WireError("too many records")
        serial, end = _serial(message, authorities, end)
        edns, refusal = _additional(message, others, end)
    except wire.WireError:
        edns = _find_edns(message)
        return ParsedQuery(flags, name, kind, class_, question, edns, fault=wire.FORMERR)
    return ParsedQuery(flags, name, kind, class_, question, edns, serial, refusal)


def has_too_many_records(message: bytes) -> bool:
    """More than any query has, by its header."""
    size = wire.HEADER.size
    return len(message) >= size and sum(wire.HEADER.unpack(message[:size])[2:]) > _RECORDS_MAX


def _find_edns(message: bytes) -> Edns | None:
    """The OPT of a message that isn't a valid query, without its options: the error response has
    one, too (RFC 6891, 6.1.1). None if there is none among the first records, or what precedes it
    can't be read."""
    if has_too_many_records(message):
        return None
    _, _, questions, *counts = wire.HEADER.unpack_from(message)
    at = wire.HEADER.size
    try:
        for _ in range(questions):
            _, at = wire.read_name(message, at)
            at += wire.TWO.size
        for _ in range(sum(counts)):
            _, kind, size, ttl, _, at = wire.read_record(message, at)
            if kind == wire.OPT:
                return Edns(size, ttl >> 16 & 0xFF, bool(ttl & _DO))
    except wire.WireError:
        pass
    return None


def _question(message: bytes) -> tuple[bytes, int, int, int]:
    start = at = wire.HEADER.size
    try:
        while size := message[at]:
            if size > wire.LABEL_MAX:
                raise wire.WireError("pointer in the question")
            at += 1 + size
        at += 1
        if at - start > wire.NAME_MAX or at + 4 > len(message):
            raise wire.WireError("incomplete question")
        kind, class_ = wire.TWO.unpack_from(message, at)
    except IndexError:
        raise wire.WireError("unterminated name") from None
    return message[start:at].lower(), kind, class_, at + 4


def _serial(message: bytes, count: int, at: int) -> tuple[int | None, int]:
    """The serial of the client's SOA in IXFR (RFC 1995, 3), and the end of the section."""
    serial = None
    for _ in range(count):
        _, kind, _, _, rdata, at = wire.read_record(message, at)
        if kind == wire.SOA and len(rdata) > wire.SOA_TIMES:
            serial = int.from_bytes(rdata[-wire.SOA_TIMES :][:4], "big")
    return serial, at


def _additional(message: bytes, count: int, at: int) -> tuple[Edns | None, bytes]:
    edns, refusal = None, b""
    for _ in range(count):
        if refusal:
            raise wire.WireError("record after TSIG")
        start = at
        owner, kind, class_, ttl, rdata, at = wire.read_record(message, at)
        if kind == wire.OPT:
            if edns or message[start]:  # the byte itself: a pointer to a root isn't accepted
                raise wire.WireError("a second OPT, or one with an owner")
            edns = _edns(class_, ttl, rdata)
        elif kind == wire.TSIG:
            if class_ != wire.ANY or ttl:
                raise wire.WireError("malformed TSIG")
            refusal = _refusal(owner, rdata)
    if at != len(message):
        raise wire.WireError("trailing data")
    return edns, refusal


def _edns(size: int, ttl: int, rdata: bytes) -> Edns:
    cookie, at = b"", 0
    while at < len(rdata):
        if at + 4 > len(rdata):
            raise wire.WireError("truncated option")
        code, length = wire.TWO.unpack_from(rdata, at)
        value = rdata[at + 4 : at + 4 + length]
        if len(value) < length:
            raise wire.WireError("truncated option")
        at += 4 + length
        if code == COOKIE and not cookie:  # of several the first counts (RFC 7873, 5.2)
            if length != CLIENT_COOKIE and not COOKIE_MIN <= length <= COOKIE_MAX:
                raise wire.WireError("malformed cookie")
            cookie = value
    return Edns(size, ttl >> 16 & 0xFF, bool(ttl & _DO), cookie)


def _refusal(owner: bytes, rdata: bytes) -> bytes:
    """The unsigned TSIG of a BADKEY response (RFC 8945, 5.2.1 and 5.3.2)."""
    _, at = wire.read_name(rdata, 0)
    end = at + _TSIG_TIMES + int.from_bytes(rdata[at + 8 : at + _TSIG_TIMES], "big")
    if len(rdata) < end + 6 or len(rdata) != end + 6 + int.from_bytes(rdata[end + 4 :][:2], "big"):
        raise wire.WireError("malformed TSIG")
    error = wire.BADKEY.to_bytes(2, "big")
    response = rdata[: at + 8] + b"\0\0" + rdata[end : end + 2] + error + b"\0\0"
    return owner + wire.FIXED.pack(wire.TSIG, wire.ANY, 0, len(response)) + response

"""The DNS wire format: constants, names and records (RFC 1035, 4.1).

Rules: a name in wire form is uncompressed, and in lower case if it is used as a key. Malformed data
raises WireError.
"""

from __future__ import annotations

import struct
from typing import Final

A, NS, CNAME, SOA, AAAA, HINFO = 1, 2, 5, 6, 28, 13
SVCB, HTTPS, SIG, RRSIG = 64, 65, 24, 46
OPT, TSIG, IXFR, AXFR, MAILB, MAILA, ANY = 41, 250, 251, 252, 253, 254, 255
IN = 1
QR, OPCODE, AA, TC, RD, CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0010  # header flags
NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH = 0, 1, 3, 4, 5, 9
BADVERS, BADKEY = 16, 17

HEADER: Final = struct.Struct("!6H")  # ID, flags, counts of the four sections
TWO: Final = struct.Struct("!HH")
FIXED: Final = struct.Struct("!HHIH")  # type, class, TTL, length of the data
ROOT = b"\0"
NAME_MAX, LABEL_MAX = 255, 63
POINTER = 0xC0
_POINTERS_MAX = 10  # in a name; as Go's resolver, which reads everything that is in use
SOA_TIMES = 20  # bytes of an SOA's data after its names


class WireError(ValueError):
    """Malformed DNS data."""


def is_response(message: bytes) -> bool:
    return len(message) > 2 and bool(message[2] & QR >> 8)


def encode_name(text: str) -> bytes:
    """A name in wire form, in lower case. Raises ValueError if the text isn't a valid name."""
    labels = text.lower().removesuffix(".").split(".") if text not in ("", ".") else []
    if not all(0 < len(label) <= LABEL_MAX and label.isascii() for label in labels):
        raise ValueError(f"not a domain name: {text}")
    wire = b"".join(bytes((len(label),)) + label.encode("ascii") for label in labels) + ROOT
    if len(wire) > NAME_MAX:
        raise ValueError(f"a name longer than {NAME_MAX} bytes: {text}")
    return wire


def decode_name(data: bytes, at: int = 0) -> tuple[str, int]:
    """The name at offset `at` as text, in lower case and without the final dot, and its end.
    Unprintable bytes, and dots in labels, are escaped (RFC 1035, 5.1)."""
    wire, end = read_name(data, at)
    labels, at = [], 0
    while size := wire[at]:
        label = wire[at + 1 : at + 1 + size]
        labels.append("".join(_escaped(byte) for byte in label))
        at += 1 + size
    return ".".join(labels), end


def _escaped(byte: int) -> str:
    if byte in b".\\":
        return f"\\{byte:c}"
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03}"


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """The name at offset `at` in wire form, and its end. Pointers must lead backwards, and be few:
    otherwise a packet could consist of names that each have hundreds, and take long to read."""
    labels, length, end, before, pointers = [], 1, 0, at, 0
    try:
        while size := data[at]:
            if size >= POINTER:
                end = end or at + 2
                at = (size - POINTER) << 8 | data[at + 1]
                pointers += 1
                if at >= before or pointers > _POINTERS_MAX:
                    raise WireError("pointer forwards, or too many")
                before = at
                continue
            length += 1 + size
            if size > LABEL_MAX or length > NAME_MAX:
                raise WireError("name too long")
            labels.append(data[at : at + 1 + size])
            at += 1 + size
    except IndexError:
        raise WireError("unterminated name") from None
    return b"".join(labels).lower() + ROOT, end or at + 1


def compression_offsets(name: bytes) -> dict[bytes, bytes]:
    """All suffixes of the name in a question, each with the pointer to it."""
    pointers, at = {}, 0
    while size := name[at]:
        pointers[name[at:]] = (POINTER << 8 | HEADER.size + at).to_bytes(2, "big")
        at += 1 + size
    return pointers


def compress(name: bytes, pointers: dict[bytes, bytes]) -> bytes:
    """A name whose longest suffix in `pointers` is replaced by the pointer."""
    at = 0
    while size := name[at]:
        if pointer := pointers.get(name[at:]):
            return name[:at] + pointer
        at += 1 + size
    return name


def record(owner: bytes, kind: int, ttl: int, rdata: bytes, pointers: dict[bytes, bytes]) -> bytes:
    """A record. Names in its data are compressed only for types where receivers must support it
    (RFC 3597, 4)."""
    if pointers and kind in (NS, CNAME):
        rdata = compress(rdata, pointers)
    elif pointers and kind == SOA:
        middle = rdata.index(0) + 1
        names = compress(rdata[:middle], pointers) + compress(rdata[middle:-SOA_TIMES], pointers)
        rdata = names + rdata[-SOA_TIMES:]
    return compress(owner, pointers) + FIXED.pack(kind, IN, ttl, len(rdata)) + rdata


def read_record(data: bytes, at: int) -> tuple[bytes, int, int, int, bytes, int]:
    """Owner, type, class, TTL and data of the record at offset `at`, and its end."""
    owner, at = read_name(data, at)
    start = at + FIXED.size
    if start > len(data):
        raise WireError("truncated record")
    kind, class_, ttl, size = FIXED.unpack_from(data, at)
    end = start + size
    if end > len(data):
        raise WireError("truncated record")
    return owner, kind, class_, ttl, data[start:end], end

"""The wire form of the DNS: its numbers, names and records (RFC 1035, 4.1).

Rules: a name is bytes of labels, whole, and in lower case where it is a key. What can't be read is
a BadWire, whatever is wrong with it.
"""

from __future__ import annotations

import struct
from typing import Final

A, NS, CNAME, SOA, AAAA, HINFO = 1, 2, 5, 6, 28, 13
SVCB, HTTPS, SIG, RRSIG = 64, 65, 24, 46
OPT, TSIG, IXFR, AXFR, MAILB, MAILA, ANY = 41, 250, 251, 252, 253, 254, 255
IN = 1
QR, OPCODE, AA, TC, RD, CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0010  # of a header's flags
NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH = 0, 1, 3, 4, 5, 9
BADVERS, BADKEY = 16, 17

HEADER: Final = struct.Struct("!6H")  # ID, flags, and how many records the four sections hold
TWO: Final = struct.Struct("!HH")
FIXED: Final = struct.Struct("!HHIH")  # type, class, TTL, length of the data
ROOT = b"\0"
MOST_NAME, MOST_LABEL = 255, 63
POINTER = 0xC0
SOA_TIMES = 20  # bytes of an SOA's data behind its names


class BadWire(ValueError):
    """Bytes that are not what they should be."""


def encode_name(text: str) -> bytes:
    """A name's wire form, in lower case; ValueError if it has none."""
    labels = text.lower().removesuffix(".").split(".") if text not in ("", ".") else []
    if not all(0 < len(label) <= MOST_LABEL and label.isascii() for label in labels):
        raise ValueError(f"no name: {text}")
    wire = b"".join(bytes((len(label),)) + label.encode("ascii") for label in labels) + ROOT
    if len(wire) > MOST_NAME:
        raise ValueError(f"a name longer than {MOST_NAME} bytes: {text}")
    return wire


def decode_name(data: bytes, at: int = 0) -> tuple[str, int]:
    """The name that stands at `at`, in lower case and without the final dot, and where it ends.
    What isn't printable, and a dot in a label, is escaped (RFC 1035, 5.1)."""
    wire, end = read_name(data, at)
    labels, at = [], 0
    while size := wire[at]:
        label = wire[at + 1 : at + 1 + size]
        labels.append("".join(_shown(byte) for byte in label))
        at += 1 + size
    return ".".join(labels), end


def _shown(byte: int) -> str:
    if byte in b".\\":
        return f"\\{byte:c}"
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03}"


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """The same as wire form: pointers are followed, each to what stands before it."""
    labels, length, end, before = [], 1, 0, at
    try:
        while size := data[at]:
            if size >= POINTER:
                end = end or at + 2
                at = (size - POINTER) << 8 | data[at + 1]
                if at >= before:
                    raise BadWire("a pointer that leads on")
                before = at
                continue
            length += 1 + size
            if size > MOST_LABEL or length > MOST_NAME:
                raise BadWire("a name that is too long")
            labels.append(data[at : at + 1 + size])
            at += 1 + size
    except IndexError:
        raise BadWire("a name without an end") from None
    return b"".join(labels).lower() + ROOT, end or at + 1


def places(asked: bytes) -> dict[bytes, bytes]:
    """The ends of the name in a question, each with the pointer that stands for it."""
    found, at = {}, 0
    while size := asked[at]:
        found[asked[at:]] = (POINTER << 8 | HEADER.size + at).to_bytes(2, "big")
        at += 1 + size
    return found


def squeeze(name: bytes, places: dict[bytes, bytes]) -> bytes:
    """A name as it is written where its longest end that is in `places` has been before."""
    at = 0
    while size := name[at]:
        if pointer := places.get(name[at:]):
            return name[:at] + pointer
        at += 1 + size
    return name


def record(owner: bytes, kind: int, ttl: int, rdata: bytes, places: dict[bytes, bytes]) -> bytes:
    """A record; in the data of those types names are squeezed whose readers must expect it (RFC
    3597, 4)."""
    if places and kind in (NS, CNAME):
        rdata = squeeze(rdata, places)
    elif places and kind == SOA:
        middle = rdata.index(0) + 1
        names = squeeze(rdata[:middle], places) + squeeze(rdata[middle:-SOA_TIMES], places)
        rdata = names + rdata[-SOA_TIMES:]
    return squeeze(owner, places) + FIXED.pack(kind, IN, ttl, len(rdata)) + rdata


def read_record(data: bytes, at: int) -> tuple[bytes, int, int, int, bytes, int]:
    """Owner, type, class, TTL and data of the record at `at`, and where it ends."""
    owner, at = read_name(data, at)
    start = at + FIXED.size
    if start > len(data):
        raise BadWire("a record without an end")
    kind, class_, ttl, size = FIXED.unpack_from(data, at)
    end = start + size
    if end > len(data):
        raise BadWire("a record without an end")
    return owner, kind, class_, ttl, data[start:end], end

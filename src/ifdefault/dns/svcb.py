"""HTTPS and SVCB records with the current addresses as hints (RFC 9460).

Rules: records that already have a hint, are in AliasMode, which has no parameters, or are malformed
remain unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.dns import wire

IPV4HINT, IPV6HINT = 4, 6


def target(owner: bytes, rdata: bytes) -> bytes:
    """The name whose addresses are the hints; b"" if the record gets none."""
    try:
        name, at = wire.read_name(rdata, 2)
        keys = [key for key, _ in _params(rdata, at)]
    except wire.WireError:
        return b""
    if rdata[:2] == b"\0\0" or IPV4HINT in keys or IPV6HINT in keys:
        return b""
    return owner if name == wire.ROOT else name


def hinted(rdata: bytes, v4: tuple[bytes, ...], v6: tuple[bytes, ...]) -> bytes:
    """The record with hints, in the order of keys."""
    if not v4 and not v6:
        return rdata
    _, at = wire.read_name(rdata, 2)
    params = list(_params(rdata, at))
    hints = ((IPV4HINT, b"".join(v4)), (IPV6HINT, b"".join(v6)))
    params += [(key, wire.TWO.pack(key, len(value)) + value) for key, value in hints if value]
    return rdata[:at] + b"".join(param for _, param in sorted(params))


def _params(rdata: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Each parameter as (key, its bytes including the key)."""
    while at < len(rdata):
        key, size = wire.TWO.unpack_from(rdata.ljust(at + 4, b"\0"), at)
        end = at + 4 + size
        if end > len(rdata):
            raise wire.WireError("truncated parameter")
        yield key, rdata[at:end]
        at = end

"""HTTPS and SVCB records whose hints are the addresses of now (RFC 9460).

Rules: a record that has a hint of its own keeps what it says, and so does one in AliasMode, which
has no parameters, and one that can't be read.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.dns import wire

IPV4HINT, IPV6HINT = 4, 6


def target(owner: bytes, rdata: bytes) -> bytes:
    """Whose addresses are hinted at; b"" where no hint belongs."""
    try:
        name, at = wire.read_name(rdata, 2)
        keys = [key for key, _ in _params(rdata, at)]
    except wire.BadWire:
        return b""
    if rdata[:2] == b"\0\0" or IPV4HINT in keys or IPV6HINT in keys:
        return b""
    return owner if name == wire.ROOT else name


def hinted(rdata: bytes, v4: tuple[bytes, ...], v6: tuple[bytes, ...]) -> bytes:
    """The record with hints, put where the order of keys wants them."""
    if not v4 and not v6:
        return rdata
    _, at = wire.read_name(rdata, 2)
    params = list(_params(rdata, at))
    hints = ((IPV4HINT, b"".join(v4)), (IPV6HINT, b"".join(v6)))
    params += [(key, wire.TWO.pack(key, len(value)) + value) for key, value in hints if value]
    return rdata[:at] + b"".join(whole for _, whole in sorted(params))


def _params(rdata: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Each parameter's key, and all of its bytes."""
    while at < len(rdata):
        key, size = wire.TWO.unpack_from(rdata.ljust(at + 4, b"\0"), at)
        end = at + 4 + size
        if end > len(rdata):
            raise wire.BadWire("half a parameter")
        yield key, rdata[at:end]
        at = end

"""Transaction signatures (RFC 8945): the last record of a message authenticates it.

Rules: times are Unix time, and arguments. Truncated MACs are neither created nor accepted. All
messages of a zone transfer are signed.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ifdefault.dns import wire

BADSIG, BADKEY, BADTIME = 16, 17, 18
FUDGE_S = 300  # RFC 8945, 10
_HASHES = {
    "hmac-sha1": hashlib.sha1,
    "hmac-sha224": hashlib.sha224,
    "hmac-sha256": hashlib.sha256,
    "hmac-sha384": hashlib.sha384,
    "hmac-sha512": hashlib.sha512,
}
_TIMES: Final = struct.Struct("!HIH")  # seconds in 48 bits, fudge
_TAIL: Final = struct.Struct("!3H")  # original ID, error, length of what follows
_OWNER: Final = struct.Struct("!HI")  # class, TTL


class TsigKey(Protocol):
    """`name` and `algorithm` in lower case, without a final dot."""

    @property
    def name(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def secret(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Signature:
    """A TSIG record; the names in wire form."""

    owner: bytes
    algorithm: bytes
    signed_s: int
    fudge_s: int
    mac: bytes
    id: int
    error: int = 0
    other: bytes = b""

    def names(self, key: TsigKey) -> bool:
        return self.owner == wire.encode_name(key.name)


def split(message: bytes) -> tuple[bytes, Signature | None]:
    """A message without its TSIG, and the signature. Raises WireError if it is malformed. The
    message keeps its ID: the original one is only for the MAC (RFC 8945, 4.3.1)."""
    if len(message) < wire.HEADER.size:
        raise wire.WireError("incomplete header")
    number, flags, questions, *counts = wire.HEADER.unpack_from(message)
    at = wire.HEADER.size
    for _ in range(questions):
        _, at = wire.read_name(message, at)
        at += wire.TWO.size
    start, kind, owner, rdata = at, 0, b"", b""
    for _ in range(sum(counts)):
        if kind == wire.TSIG:  # RFC 8945, 5.1
            raise wire.WireError("record after TSIG")
        start = at
        owner, kind, _, _, rdata, at = wire.read_record(message, at)
    if kind != wire.TSIG or not counts[2]:
        return message, None
    if at != len(message):
        raise wire.WireError("trailing data")
    signature = _read(owner, rdata)
    head = wire.HEADER.pack(number, flags, questions, *counts[:2], counts[2] - 1)
    return head + message[wire.HEADER.size : start], signature


def _read(owner: bytes, rdata: bytes) -> Signature:
    algorithm, at = wire.read_name(rdata, 0)
    try:
        high, low, fudge_s = _TIMES.unpack_from(rdata, at)
        at += _TIMES.size
        (size,) = struct.unpack_from("!H", rdata, at)
        mac, at = rdata[at + 2 : at + 2 + size], at + 2 + size
        number, error, others = _TAIL.unpack_from(rdata, at)
    except struct.error:
        raise wire.WireError("malformed TSIG") from None
    other = rdata[at + _TAIL.size :]
    if len(mac) != size or len(other) != others:
        raise wire.WireError("malformed TSIG")
    return Signature(owner, algorithm, high << 32 | low, fudge_s, mac, number, error, other)


def verify(
    plain: bytes, signature: Signature, key: TsigKey, now: float, request_mac: bytes = b""
) -> int:
    """The error of a message's signature, 0 if it is valid. `request_mac`: the MAC of the query, if
    the message is its response."""
    if not signature.names(key) or signature.algorithm != wire.encode_name(key.algorithm):
        return BADKEY
    if not hmac.compare_digest(_mac(key, request_mac, plain, signature), signature.mac):
        return BADSIG
    # whole seconds, as other implementations: a fudge of 0 permits the same second
    return 0 if abs(signature.signed_s - int(now)) <= signature.fudge_s else BADTIME


class Signer:
    """Signs a query, or all response messages to a query with the MAC `request_mac`, in order."""

    def __init__(self, key: TsigKey, request_mac: bytes = b"") -> None:
        self._key, self.mac = key, request_mac
        self._first = True
        self._names = wire.encode_name(key.name), wire.encode_name(key.algorithm)

    @property
    def extra_bytes(self) -> int:
        """The size of the TSIG record."""
        mac = hashlib.new(self._key.algorithm.removeprefix("hmac-")).digest_size
        fixed = wire.FIXED.size + _TIMES.size + 2 + _TAIL.size
        return sum(map(len, self._names)) + fixed + mac

    def sign(self, message: bytes, now: float, error: int = 0, other: bytes = b"") -> bytes:
        (number,) = struct.unpack_from("!H", message)
        unsigned = Signature(*self._names, int(now), FUDGE_S, b"", number, error, other)
        self.mac = _mac(self._key, self.mac, message, unsigned, first=self._first)
        self._first = False
        return append(message, unsigned, self.mac)


def append(message: bytes, signature: Signature, mac: bytes = b"") -> bytes:
    rdata = (
        signature.algorithm
        + _times(signature)
        + len(mac).to_bytes(2, "big")
        + mac
        + _TAIL.pack(signature.id, signature.error, len(signature.other))
        + signature.other
    )
    record = signature.owner + wire.FIXED.pack(wire.TSIG, wire.ANY, 0, len(rdata)) + rdata
    count = int.from_bytes(message[10:12], "big") + 1
    return message[:10] + count.to_bytes(2, "big") + message[12:] + record


def refuse(answer: bytes, signature: Signature, key: TsigKey, error: int, now: float) -> bytes:
    """The response to a query with an invalid signature (RFC 8945, 5.3.2), from the `answer`
    without TSIG."""
    if error == BADTIME:  # signed, so that the client can trust our time
        other = int(now).to_bytes(6, "big")
        return Signer(key, signature.mac).sign(answer, signature.signed_s, error, other)
    its = replace(signature, signed_s=int(now), fudge_s=FUDGE_S, mac=b"", error=error, other=b"")
    return append(answer, its)


def _times(signature: Signature) -> bytes:
    high, low = divmod(signature.signed_s, 1 << 32)
    return _TIMES.pack(high, low, signature.fudge_s)


def _mac(
    key: TsigKey, prior: bytes, plain: bytes, unsigned: Signature, *, first: bool = True
) -> bytes:
    """The MAC over the previous MAC, the message without TSIG, and the TSIG's other fields (RFC
    8945, 4.3); of messages after the first, only the times of the TSIG (5.3.1)."""
    digest = hmac.new(key.secret, digestmod=_HASHES[key.algorithm])
    if prior:
        digest.update(len(prior).to_bytes(2, "big") + prior)
    digest.update(unsigned.id.to_bytes(2, "big") + plain[2:])
    if first:
        digest.update(unsigned.owner + _OWNER.pack(wire.ANY, 0) + unsigned.algorithm)
    digest.update(_times(unsigned))
    if first:
        digest.update(unsigned.error.to_bytes(2, "big") + len(unsigned.other).to_bytes(2, "big"))
        digest.update(unsigned.other)
    return digest.digest()

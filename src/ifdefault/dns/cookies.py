"""DNS cookies: how a client shows that its address is its own (RFC 7873, RFC 9018).

Rules: nobody has to have one. A cookie is 8 bytes that the client chose, and 16 of ours, which say
when they were made, for that client at that address. Whatever the clock does, a cookie that isn't
good is replaced, and costs no answer.
"""

from __future__ import annotations

import math
from hmac import compare_digest
from ipaddress import ip_address

from siphash24 import siphash24  # type: ignore[import-not-found]  # it has no stubs

SECRET_BYTES = 16
OLDEST_S, FRESH_S, AHEAD_S = 3600, 1800, 300  # RFC 9018, 4.3
OPTION_BYTES = 28
_CLIENT, _WHOLE = 8, 24  # bytes of a cookie
_VERSION = b"\1\0\0\0"  # and three bytes that are reserved
_OPTION = b"\0\x0a\0\x18"  # code and length
_HOLDS_S = 60  # so long a judgement holds: a client that repeats itself costs no more hashes
_MOST_JUDGED = 4096

Judgement = tuple[bool, bytes]


class Cookies:
    __slots__ = ("_judged", "_secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a secret of {len(secret)} bytes, not of {SECRET_BYTES}")
        self._secret = secret
        self._judged: dict[tuple[str, bytes], tuple[float, Judgement]] = {}

    def judge(self, cookie: bytes, client: str, unix_s: float) -> Judgement:
        """Whether a cookie is a good one of this client's, and the option to answer with."""
        at_s, judgement = self._judged.get((client, cookie), _NEVER)
        if not 0 <= unix_s - at_s < _HOLDS_S:
            if len(self._judged) >= _MOST_JUDGED:
                self._judged.clear()
            judgement = self._judge(cookie, pack(client), int(unix_s))
            self._judged[client, cookie] = unix_s, judgement
        return judgement

    def _judge(self, cookie: bytes, address: bytes, unix_s: int) -> Judgement:
        age_s = unix_s - int.from_bytes(cookie[12:16], "big") & 0xFFFFFFFF
        age_s -= (age_s & 1 << 31) << 1  # serial arithmetic (RFC 1982)
        good = (
            len(cookie) == _WHOLE
            and cookie[_CLIENT] == _VERSION[0]
            and -AHEAD_S <= age_s <= OLDEST_S
            and compare_digest(cookie[16:], self._hash(cookie[:16] + address))
        )
        if good and age_s <= FRESH_S:
            return True, _OPTION + cookie
        return good, _OPTION + self.make(cookie[:_CLIENT], address, unix_s)

    def make(self, theirs: bytes, address: bytes, unix_s: int) -> bytes:
        """A whole cookie, of the client's part and its address."""
        told = theirs + _VERSION + (unix_s & 0xFFFFFFFF).to_bytes(4, "big")
        return told + self._hash(told + address)

    def _hash(self, data: bytes) -> bytes:
        digest: bytes = siphash24(data, key=self._secret).digest()
        return digest


_NEVER: tuple[float, Judgement] = (-math.inf, (False, b""))


def pack(client: str) -> bytes:
    try:
        return ip_address(client).packed
    except ValueError:  # any bytes will do that are its own
        return client.encode()

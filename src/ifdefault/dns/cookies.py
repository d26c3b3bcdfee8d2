"""DNS cookies, by which a client proves that its address isn't forged (RFC 7873, RFC 9018).

Rules: cookies are optional. A cookie has 8 bytes of the client and 16 of the server, which
authenticate the client's part, its address and a timestamp. An invalid cookie is replaced, and the
query is answered nonetheless. After the secret has changed, cookies by the former one remain valid,
and are replaced (RFC 9018, 5).
"""

from __future__ import annotations

import math
from hmac import compare_digest
from ipaddress import ip_address

from siphash24 import siphash24  # type: ignore[import-not-found]  # it has no stubs

SECRET_BYTES = 16
OLDEST_S, FRESH_S, AHEAD_S = 3600, 1800, 300  # RFC 9018, 4.3
OPTION_BYTES = 28
_CLIENT, _COMPLETE = 8, 24  # bytes of a cookie
_VERSION = b"\1\0\0\0"  # with three reserved bytes
_OPTION = b"\0\x0a\0\x18"  # code and length
_CACHED_S = 60  # how long the result for a cookie is cached
_CACHE_MAX = 4096

CookieCheck = tuple[bool, bytes]


class Cookies:
    __slots__ = ("_cache", "_secrets")

    def __init__(self, *secrets: bytes) -> None:
        """`secrets`: the current one, and those that were current before."""
        if not secrets or any(len(secret) != SECRET_BYTES for secret in secrets):
            raise ValueError(f"no secrets of {SECRET_BYTES} bytes")
        self._secrets = secrets
        self._cache: dict[tuple[str, bytes], tuple[float, CookieCheck]] = {}

    def check(self, cookie: bytes, client: str, unix_s: float) -> CookieCheck:
        """Whether a cookie is valid for this client, and the option for the response."""
        at_s, result = self._cache.get((client, cookie), _NEVER)
        if not 0 <= unix_s - at_s < _CACHED_S:
            if len(self._cache) >= _CACHE_MAX:
                self._cache.clear()
            result = self._check(cookie, pack(client), int(unix_s))
            self._cache[client, cookie] = unix_s, result
        return result

    def _check(self, cookie: bytes, address: bytes, unix_s: int) -> CookieCheck:
        age_s = unix_s - int.from_bytes(cookie[12:16], "big") & 0xFFFFFFFF
        age_s -= (age_s & 1 << 31) << 1  # serial arithmetic (RFC 1982)
        good = (
            len(cookie) == _COMPLETE
            and cookie[_CLIENT] == _VERSION[0]
            and -AHEAD_S <= age_s <= OLDEST_S
        )
        made = (
            compare_digest(cookie[16:], _hash(cookie[:16] + address, secret))
            for secret in (self._secrets if good else ())
        )
        if next(made, False):
            if age_s <= FRESH_S:
                return True, _OPTION + cookie
        else:
            good = any(made)
        return good, _OPTION + self.make(cookie[:_CLIENT], address, unix_s)

    def make(self, client_part: bytes, address: bytes, unix_s: int) -> bytes:
        """A complete cookie, for the client's part and address."""
        head = client_part + _VERSION + (unix_s & 0xFFFFFFFF).to_bytes(4, "big")
        return head + _hash(head + address, self._secrets[0])


def _hash(data: bytes, secret: bytes) -> bytes:
    digest: bytes = siphash24(data, key=secret).digest()
    return digest


_NEVER: tuple[float, CookieCheck] = (-math.inf, (False, b""))


def pack(client: str) -> bytes:
    try:
        return ip_address(client).packed
    except ValueError:  # any bytes that identify it
        return client.encode()

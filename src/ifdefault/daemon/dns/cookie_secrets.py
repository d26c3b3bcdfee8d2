"""The secrets of DNS cookies: a new one each day; the one before remains valid for a day.

Rules: they are in a file that only root can read, so that cookies stay valid when the engine or the
DNS server is replaced, and after a restart of the host.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Annotated

from ifdefault.dns.cookies import SECRET_BYTES
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.ipc.fields import text

ROLL_S = 86_400  # RFC 7873, 7.1: at most 36 days
_PATTERN = rf"[0-9a-f]{{{2 * SECRET_BYTES}}}"


@dataclass(frozen=True, slots=True)
class _CookieSecret:
    since_s: int  # Unix time
    secret: Annotated[str, text(_PATTERN)]  # hexadecimal


COOKIES: StateFile[tuple[_CookieSecret, ...]] = StateFile(
    "cookies.json",
    tuple[_CookieSecret, ...],
    "DNS clients get new cookies",
    urgent=False,
    mode=0o600,
)


class CookieSecrets:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._secrets: tuple[_CookieSecret, ...] = ()

    def current(self) -> tuple[tuple[str, ...], float]:
        """The current secret and the one before it, and for how many seconds they are."""
        now = int(time.time())
        secrets = (self._secrets or self._store.read(COOKIES) or ())[:2]
        if not secrets or not 0 <= now - secrets[0].since_s < ROLL_S:
            secrets = (_CookieSecret(now, os.urandom(SECRET_BYTES).hex()), *secrets)[:2]
            self._store.write(COOKIES, secrets)
        self._secrets = secrets
        return tuple(each.secret for each in secrets), secrets[0].since_s + ROLL_S - now

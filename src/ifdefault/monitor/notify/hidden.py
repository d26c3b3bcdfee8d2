"""Takes what a notifier keeps secret out of what servers and programs say.

Rules: that is shown to all users, in status and log, while secrets are in files that they can't
read. Servers repeat what they were asked for, also where they redirect to, and apprise repeats the
URLs that it can't use. Rather too much is hidden than too little: of a URL for apprise all but the
scheme, since nobody knows which part is the secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ifdefault.ipc.regular_file import read_regular
from ifdefault.model.config import NotifyConfig

HIDDEN = "…"
_SHORTEST = 4
_LONGEST_FILE = 64 * 1024
_SCHEME = re.compile(r"[\w.+-]+://")


def hide(text: str, config: NotifyConfig) -> str:
    """The text without the secrets of a notifier."""
    secrets = {secret for secret in _secrets(config) if len(secret) >= _SHORTEST}
    secrets |= {other for secret in secrets for other in (quote(secret, safe=""), unquote(secret))}
    if not secrets:
        return text
    longest_first = sorted(secrets, key=lambda secret: (-len(secret), secret))
    return re.sub("|".join(map(re.escape, longest_first)), HIDDEN, text)


def _secrets(config: NotifyConfig) -> Iterator[str]:
    for file in (config.secret_file, config.password_file):
        yield _content(file).strip().partition("\n")[0].strip()
    for url in (config.smtp, config.webhook, config.ntfy):
        yield from _of_url(url)
    for file in (config.webhook_file, config.ntfy_file):
        yield from _of_url(_content(file).strip().partition("\n")[0].strip())
    for word in _content(config.apprise).split():
        if scheme := _SCHEME.search(word):
            yield word[scheme.end() :]
            yield from re.split(r"[/:@?&=,;#]+", word[scheme.end() :])


def _of_url(url: str) -> Iterator[str]:
    """Its password, with the user; its path, and the end of that, which are a webhook or topic."""
    with suppress(ValueError):
        parts = urlsplit(url)
        userinfo = parts.netloc.rpartition("@")[0]
        if ":" in userinfo:
            yield userinfo
            yield userinfo.partition(":")[2]
            yield base64.b64encode(unquote(userinfo).encode()).decode("ascii", "replace")
        yield (parts.path + (f"?{parts.query}" if parts.query else "")).lstrip("/")
        yield parts.path.lstrip("/")
        yield parts.path.rstrip("/").rpartition("/")[2]
        yield parts.query


def _content(path: str) -> str:
    with suppress(OSError):
        return read_regular(Path(path), _LONGEST_FILE).decode("utf-8", "replace") if path else ""
    return ""

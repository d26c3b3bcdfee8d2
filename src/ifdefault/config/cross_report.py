"""Checks of [web] and [[notify]] beyond single keys.

Rules: as in `config.cross`. Each table names one recipient, and mail has keys of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from ifdefault.config.cross import Finding, ValidConfig
from ifdefault.config.notify import MEANS, NotifyKeys
from ifdefault.model.config import WebConfig

_MAIL_ONLY = {"smtp": "smtp", "password_file": "password_file", "sender": "from"}


def findings(valid: ValidConfig) -> Iterator[Finding]:
    for key, what, remedy in _check_web(valid.web):
        yield ("web", key), what, remedy
    for n, keys in enumerate(valid.notify):
        for path, what, remedy in _check(valid, n, keys):
            yield ("notify", n, *path), what, remedy


def _check_web(web: WebConfig) -> Iterator[tuple[str, str, str]]:
    public = not web.socket and not ip_address(web.address[0]).is_loopback
    if public and not web.token_file:
        what = f'"{web.listen}" can be reached by others'
        remedy = f'add token_file = "/etc/ifdefault/web.token", or use "{WebConfig().listen}"'
        yield "listen", what, remedy
    if web.control_token_file and web.control_token_file == web.token_file:
        what = f'"{web.token_file}" is also token_file'
        yield "control_token_file", what, "use a file of its own, which only root may read"


def _check(valid: ValidConfig, n: int, keys: NotifyKeys) -> Iterator[Finding]:
    """The errors of one table; paths begin in it."""
    yield from valid.unknown_uplinks("uplinks", keys.uplinks)
    if any(keys.name == earlier.name for earlier in valid.notify[:n]):
        yield ("name",), f'"{keys.name}" is already the name of another', "use another name"
    used = [key for key in MEANS if getattr(keys, key)]
    if not used:
        yield (), "no recipient", "add mail, webhook, ntfy or apprise"
    for key in used[1:]:
        yield (key,), f"conflicts with {used[0]}", "use a [[notify]] for each"
    if "mail" in used:
        yield from _check_password(keys)
        return
    for name, key in _MAIL_ONLY.items():
        if name in keys.model_fields_set:
            yield (key,), "is for mail only", "remove it, or add mail"


def _check_password(keys: NotifyKeys) -> Iterator[Finding]:
    user = urlsplit(keys.smtp).username
    if user and not keys.password_file:
        yield ("smtp",), f'no password for "{user}"', "name a file with it in password_file"
    if keys.password_file and not user:
        what = "smtp has no user"
        yield ("password_file",), what, 'write smtp = "smtps://user@mail.example.org"'

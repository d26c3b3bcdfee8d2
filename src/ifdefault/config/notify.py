"""The keys of [[notify]].

Rules: as in `config.base`. What is in the files is checked on the host.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, ConfigDict, Field

from ifdefault.config.base import (
    Keys,
    Uplinks,
    absolute,
    distinct,
    duration,
    reject,
    times_of_day,
    toml,
)
from ifdefault.config.uplink import NAME
from ifdefault.model.config import EVENT_KINDS, NotifyConfig

MEANS = ("mail", "webhook", "webhook_file", "ntfy", "ntfy_file", "apprise")
MOST_NOTIFY = 32
_NOTIFY = NotifyConfig("")
_LONGEST_GROUP_S = 3600
_MAIL = re.compile(r"[^@\s<>,;:\"()]+@[^@\s<>,;:\"()]+")  # one address, without a display name


def _name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        remedy = "use up to 31 of a-z, 0-9 and -, with a letter or digit at both ends"
        reject(f"{toml(name)} is not a valid name", remedy)
    return name


def _mail(address: str) -> str:
    if address and not (_MAIL.fullmatch(address) and address.isprintable() and len(address) <= 254):
        reject(f"{toml(address[:60])} is not a mail address", 'write it like "admin@example.org"')
    return address


def _split(url: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    printable = url.isascii() and url.isprintable() and " " not in url and len(url) <= 2000
    try:
        parts = urlsplit(url if printable else "")
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        reject(f"{toml(url[:60])} is not a URL to send to", f'write it like "{example}"')
    return parts


def _webhook(url: str) -> str:
    if url:
        _split(url, ("https", "http"), "https://example.org/hook")
    return url


def _ntfy(url: str) -> str:
    example = "https://ntfy.example.org/topic"
    if url and not _split(url, ("https", "http"), example).path.strip("/"):
        reject(f"{toml(url)} has no topic", f'write it like "{example}"')
    return url


def _smtp(url: str) -> str:
    example = "smtps://user@mail.example.org"
    parts = _split(url, ("smtp", "smtps"), example)
    if parts.path.strip("/") or parts.query or parts.fragment:
        reject(f"{toml(url)} has more than a server", f'write it like "{example}"')
    if parts.password is not None:
        reject("has a password", "write it into a file, and name that in password_file")
    return url


def _kind(kind: str) -> str:
    if kind not in EVENT_KINDS:
        near = get_close_matches(kind, EVENT_KINDS, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(EVENT_KINDS)}"
        reject(f"{toml(kind)} is not a kind of event", remedy)
    return kind


def _group(text: str) -> int:
    group_s = duration(text, "10s")
    if group_s > _LONGEST_GROUP_S:
        reject(f"{toml(text)} is too long", 'use "1h" or less')
    return group_s


def _quiet(text: str) -> tuple[int, int] | None:
    return times_of_day(text, "22:00-07:00", "use severity for errors only")


def _file(example: str) -> AfterValidator:
    return AfterValidator(lambda path: absolute(path, example))


_UrlFile = Annotated[str, _file("/etc/ifdefault/webhook.url")]


class NotifyKeys(Keys):
    """Who is told of which events, and by what."""

    model_config = ConfigDict(validate_by_name=False)

    name: Annotated[str, AfterValidator(_name)] = Field(
        description="its name, in status and in ifdefault notify",
        json_schema_extra={"pattern": f"^{NAME}$"},
    )
    mail: Annotated[str, AfterValidator(_mail)] = Field(
        default=_NOTIFY.mail, description="a mail address"
    )
    webhook: Annotated[str, AfterValidator(_webhook)] = Field(
        default=_NOTIFY.webhook, description="a URL that events are POSTed to as JSON"
    )
    webhook_file: _UrlFile = Field(
        default=_NOTIFY.webhook_file, description="a file with that URL, if it is secret"
    )
    secret_file: Annotated[str, _file("/etc/ifdefault/webhook.secret")] = Field(
        default=_NOTIFY.secret_file, description="a file with the key that signs what is POSTed"
    )
    ntfy: Annotated[str, AfterValidator(_ntfy)] = Field(
        default=_NOTIFY.ntfy, description="the URL of a topic of ntfy"
    )
    ntfy_file: _UrlFile = Field(
        default=_NOTIFY.ntfy_file, description="a file with that URL, if it is secret"
    )
    apprise: Annotated[str, _file("/etc/ifdefault/apprise.conf")] = Field(
        default=_NOTIFY.apprise, description="a config file of apprise, which is run with it"
    )
    smtp: Annotated[str, AfterValidator(_smtp)] = Field(
        default=_NOTIFY.smtp, description="the mail server"
    )
    password_file: Annotated[str, _file("/etc/ifdefault/smtp.password")] = Field(
        default=_NOTIFY.password_file, description="a file with the password of the user in smtp"
    )
    sender: Annotated[str, AfterValidator(_mail)] = Field(
        default=_NOTIFY.sender,
        alias="from",
        description="the sender of mails; default: ifdefault@ and the host's name",
    )
    severity: Literal["info", "warning", "error"] = Field(
        default=_NOTIFY.severity, description="the least severity of events"
    )
    events: Annotated[tuple[Annotated[str, AfterValidator(_kind)], ...], distinct()] = Field(
        default=_NOTIFY.events, description="the kinds of events; default: all"
    )
    uplinks: Uplinks = Field(
        default=_NOTIFY.uplinks, description="uplinks whose events are sent; default: all events"
    )
    group: Annotated[str, AfterValidator(_group)] = Field(
        default=f"{_NOTIFY.group_s}s",
        validate_default=True,
        description="what follows an event within this time is sent together",
    )
    quiet: Annotated[str, AfterValidator(_quiet)] = Field(
        default="",
        validate_default=True,
        description='when only errors are sent, in local time, such as "22:00-07:00"',
    )


def notify_config(keys: NotifyKeys) -> NotifyConfig:
    values: dict[str, Any] = dict(keys)
    return NotifyConfig(group_s=values.pop("group"), **values)

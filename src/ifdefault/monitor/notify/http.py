"""Sends a message by HTTP: to a webhook, and to a topic of ntfy.

Rules: TLS certificates must be valid; a redirect isn't followed. A webhook gets the Idempotency-Key
of the message, the same if it is sent again, and with `secret_file` the signature of Standard
Webhooks (standardwebhooks.com), which covers id, time and body. A reply of 4xx, or 503, says that
the message wasn't taken; after other errors nobody knows.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import re
import ssl
import time
from datetime import UTC, datetime
from email.header import Header
from typing import Any
from urllib.parse import unquote, urlsplit

from ifdefault import __version__
from ifdefault.model.config import Severity
from ifdefault.monitor.notify.connect import bound, look_up, one_line, read_secret
from ifdefault.monitor.notify.delivery import (
    CONNECT_S,
    REPLY_S,
    Delivery,
    Refused,
    Stage,
    Tell,
    Unknown,
)
from ifdefault.monitor.notify.message import Message

_LONGEST_REPLY = 4096
_URL = re.compile(r"[!-~]+")  # no spaces, all else percent-encoded (RFC 3986)
_TOKEN = re.compile(r"[!-~]+")
_PREFIX = "whsec_"  # of a secret in base64, in Standard Webhooks
_PRIORITY: dict[Severity, str] = {"info": "default", "warning": "high", "error": "urgent"}
_TAG: dict[Severity, str] = {
    "info": "information_source",
    "warning": "warning",
    "error": "rotating_light",
}


def webhook_json(message: Message) -> dict[str, Any]:
    """The body for a webhook: documented in ifdefault.toml(5)."""
    return {
        "version": 1,
        "id": message.id,
        "host": message.host,
        "notifier": message.notifier,
        "test": message.test,
        "severity": message.severity,
        "subject": message.subject,
        "text": message.text,
        "events": [
            {
                "serial": event.serial,
                "at": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds"),
                "kind": event.kind,
                "uplink": event.uplink,
                "severity": event.severity,
                "text": event.text,
            }
            for event in message.events
        ],
    }


def send_webhook(delivery: Delivery, tell: Tell) -> str:
    config, message = delivery.config, delivery.message
    body = json.dumps(webhook_json(message)).encode()
    key = f"ifdefault.{message.host}.{message.notifier}.{message.id}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{key}"'}
    if config.secret_file:
        headers |= signature(read_secret(config.secret_file), key, int(time.time()), body)
    url = config.webhook or read_secret(config.webhook_file)
    return _post(url, headers, body, delivery.source, tell)


def signature(secret: str, key: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks. The secret is base64 after "whsec_", else a text."""
    raw = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            raw = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except ValueError:
            raise Refused("the secret is not base64; write whsec_ and base64, or a text") from None
    digest = hmac.digest(raw, f"{key}.{at}.".encode() + body, "sha256")
    signed = f"v1,{base64.b64encode(digest).decode('ascii', 'strict')}"
    return {"webhook-id": key, "webhook-timestamp": str(at), "webhook-signature": signed}


def send_ntfy(delivery: Delivery, tell: Tell) -> str:
    config, message = delivery.config, delivery.message
    headers = {
        "Title": _header(message.subject),
        "Priority": "default" if message.test else _PRIORITY[message.severity],
        "Tags": "white_check_mark" if message.test else _TAG[message.severity],
    }
    url = config.ntfy or read_secret(config.ntfy_file)
    return _post(url, headers, message.text.encode(), delivery.source, tell)


def _post(url: str, headers: dict[str, str], body: bytes, source: str, tell: Tell) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        # http.client would quote others in its error
        known = parts.scheme in ("https", "http") and _URL.fullmatch(url) is not None
    except ValueError:
        known = False
    if not known or not host:
        raise Refused('its URL is not valid; write it like "https://www.example.net/path"')
    if parts.username is not None:
        headers["Authorization"] = _authorization(parts.username, parts.password or "")
    is_tls = parts.scheme == "https"
    port = port or (443 if is_tls else 80)
    look_up(host, port, source, tell)
    ours: dict[str, Any] = {"timeout": CONNECT_S, "source_address": bound(source)}
    if is_tls:
        context = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, context=context, **ours
        )
    else:
        connection = http.client.HTTPConnection(host, port, **ours)
    try:
        connection.connect()
        connection.sock.settimeout(REPLY_S)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers["User-Agent"] = f"ifdefault/{__version__}"
        tell(Stage(f"sending to {host}", sends=True))
        connection.request("POST", target, body, headers)
        response = connection.getresponse()
        said = response.read(_LONGEST_REPLY).decode("utf-8", "replace")
        location = response.headers.get("Location", "")
    except http.client.HTTPException as error:
        raise Unknown(f"invalid answer: {one_line(str(error)) or type(error).__name__}") from None
    finally:
        connection.close()
    return _outcome(response.status, response.reason, said, location)


def _outcome(status: int, phrase: str, said: str, location: str) -> str:
    text = one_line(f"{status} {phrase}")
    if 200 <= status < 300:
        return text
    if 300 <= status < 400:
        raise Refused(one_line(f"{text}: it redirects to {location}; use that URL"))
    text = one_line(f"{text}: {said}") if said.strip() else text
    raise (Refused if status < 500 or status == 503 else Unknown)(text)


def _authorization(user: str, password: str) -> str:
    """Basic (RFC 7617), or, without a user, Bearer (RFC 6750)."""
    user, password = unquote(user), unquote(password)
    if not user:
        if not _TOKEN.fullmatch(password):  # http.client would quote it in its error
            raise Refused("the token in its URL is not printable ASCII")
        return f"Bearer {password}"
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii", "strict")


def _header(text: str) -> str:
    """A header's value; RFC 2047 if it isn't ASCII, which ntfy decodes."""
    return text if text.isascii() else Header(text, "utf-8", maxlinelen=10_000).encode()

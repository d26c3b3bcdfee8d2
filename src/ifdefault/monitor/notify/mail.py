"""Sends a message by SMTP (RFC 5321).

Rules: with TLS where the server is another host and offers it, and always with a password; the
certificate must be valid. The Message-ID is the message's own (RFC 5322, 3.6.4), so that a mailbox
can drop what comes twice. Auto-Submitted (RFC 3834) keeps away replies of vacation programs.
"""

from __future__ import annotations

import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ifdefault.monitor.notify.connect import (
    bound,
    is_loopback,
    look_up,
    one_line,
    read_secret,
)
from ifdefault.monitor.notify.delivery import (
    CONNECT_S,
    REPLY_S,
    Delivery,
    Refused,
    Stage,
    Tell,
)

_POLICY = SMTP.clone(max_line_length=200)  # a folded subject would begin with a space
_LONGEST_REPLY = 64 * 1024
PORT, SUBMISSION, SUBMISSIONS = 25, 587, 465  # RFC 5321, 6409, 8314


def write_mail(delivery: Delivery) -> EmailMessage:
    config, message = delivery.config, delivery.message
    mail = EmailMessage(policy=_POLICY)
    mail["Message-ID"] = f"<ifdefault.{message.id}.{config.name}@{message.host}>"
    mail["Date"] = format_datetime(datetime.fromtimestamp(message.at, UTC))
    mail["From"] = sender(delivery)
    mail["To"] = config.mail
    mail["Subject"] = message.subject
    mail["Auto-Submitted"] = "auto-generated"
    if message.severity == "error":
        mail["Importance"] = "high"  # RFC 4021, 2.1.36
    mail.set_content(message.text)
    return mail


def sender(delivery: Delivery) -> str:
    return delivery.config.sender or f"ifdefault@{delivery.message.host}"


def send(delivery: Delivery, tell: Tell) -> str:
    """What the server answered."""
    try:
        return _send(delivery, tell)
    except smtplib.SMTPResponseException as error:  # a reply: it didn't take the message
        raise Refused(_reply(error.smtp_code, error.smtp_error)) from None
    except smtplib.SMTPNotSupportedError as error:
        raise Refused(one_line(str(error))) from None


def _send(delivery: Delivery, tell: Tell) -> str:
    config = delivery.config
    url = urlsplit(config.smtp)
    host, user = url.hostname or "localhost", unquote(url.username or "")
    implicit = url.scheme == "smtps"
    port = url.port or (SUBMISSIONS if implicit else SUBMISSION if user else PORT)
    password = read_secret(config.password_file) if config.password_file else ""
    look_up(host, port, delivery.source, tell)
    context = ssl.create_default_context()
    ours: dict[str, Any] = {"local_hostname": delivery.message.host, "timeout": CONNECT_S}
    ours["source_address"] = bound(delivery.source)
    if implicit:
        smtp: smtplib.SMTP = _BoundedTls(host, port, **ours, context=context)
    else:
        smtp = _Bounded(host, port, **ours)
    try:
        assert smtp.sock is not None
        smtp.sock.settimeout(REPLY_S)
        tell(Stage(f"talking to {host}"))
        smtp.ehlo_or_helo_if_needed()
        if not implicit and not is_loopback(smtp.sock):
            if smtp.has_extn("starttls"):
                smtp.starttls(context=context)
                smtp.ehlo()
            elif password:
                raise Refused("it offers no STARTTLS, and a password is not sent without TLS")
        if user and password:
            smtp.login(user, password)
        _expect(*smtp.mail(sender(delivery)))
        _expect(*smtp.rcpt(config.mail))
        text = write_mail(delivery).as_bytes()
        tell(Stage(f"sending to {host}", sends=True))
        return _expect(*smtp.data(text))
    finally:
        smtp.close()


class _Bounded(smtplib.SMTP):
    """Reads no reply that is too long: a server could add lines to one for ever."""

    file: _Lines | None  # of smtplib, which reads replies from it, and sets it to None

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            assert self.sock is not None
            self.file = _Lines(self.sock.makefile("rb"))
        self.file.left = _LONGEST_REPLY
        return super().getreply()


class _BoundedTls(_Bounded, smtplib.SMTP_SSL):
    pass


class _Lines:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self.left = file, 0

    def readline(self, size: int) -> bytes:
        line = self._file.readline(size)
        self.left -= len(line)
        if self.left < 0:
            raise OSError("its reply is too long")
        return line

    def close(self) -> None:
        self._file.close()


def _expect(code: int, text: bytes) -> str:
    if not 200 <= code < 300:
        raise smtplib.SMTPResponseException(code, text)
    return _reply(code, text)


def _reply(code: int, text: bytes | str) -> str:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return one_line(f"{code} {said}")

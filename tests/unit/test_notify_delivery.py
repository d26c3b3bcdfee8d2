"""A message is sent to real receivers: by mail, to a webhook, to ntfy, and by apprise."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.ipc import codec
from ifdefault.model.config import NotifyConfig
from ifdefault.monitor.notify import apprise, mail
from ifdefault.monitor.notify.attempt import attempt
from ifdefault.monitor.notify.deliver import deliver
from ifdefault.monitor.notify.delivery import Delivery, Kind, Outcome, read_delivery
from ifdefault.monitor.notify.hidden import hide
from ifdefault.monitor.notify.message import Message, compose, compose_test
from ifdefault.monitor.notify.schedule import select
from tests.unit.certificates import Authority
from tests.unit.notified import AT, FAMILIES, event, outage
from tests.unit.notifying import deliverer
from tests.unit.receivers import (
    HANG,
    http_receiver,
    mail_receiver,
    silent_server,
)

ADMIN = NotifyConfig("ops", mail="admin@example.org")


def message(*texts: str) -> Message:
    events = [event(n, text) for n, text in enumerate(texts, 5)] or [*outage(1)]
    return compose(select(ADMIN, events, {}, AT), "ops", "web1", FAMILIES, AT + 1.0)


def send(config: NotifyConfig, text: Message | None = None, source: str = "") -> Outcome:
    return deliver(Delivery(config, text or message(), source), lambda _: None)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


def secret(path: Path, text: str = "s3cret\n") -> str:
    path.write_text(text)
    return str(path)


def test_what_a_delivery_reads_is_what_it_is_sent() -> None:
    delivery = Delivery(replace(ADMIN, quiet=(1320, 420), uplinks=("isp-a",)), message(), "::1")
    assert read_delivery(codec.read(codec.write(codec.to_json(delivery)))) == delivery


# --- mail ---------------------------------------------------------------------------------


def test_a_mail() -> None:
    with mail_receiver() as receiver:
        text = message(".", "umlauts: größer")
        config = replace(ADMIN, smtp=f"smtp://127.0.0.1:{receiver.port}")
        assert send(config, text) == Outcome("delivered", "250 queued as 0")
        sent = receiver.accepted[0].mail
    assert sent["Message-ID"] == "<ifdefault.5-6.ops@web1>"
    assert sent["From"] == "ifdefault@web1"
    assert sent["To"] == "admin@example.org"
    assert sent["Subject"] == text.subject == "web1: .; umlauts: größer"
    assert sent["Date"] == "Wed, 28 Oct 2026 14:02:11 +0000"
    assert sent["Auto-Submitted"] == "auto-generated"
    assert sent["Importance"] is None
    assert sent.get_content().replace("\r\n", "\n") == text.text


def test_an_error_is_important_and_the_sender_is_chosen() -> None:
    with mail_receiver() as receiver:
        config = replace(ADMIN, smtp=f"smtp://127.0.0.1:{receiver.port}", sender="x@example.org")
        send(config)
        sent = receiver.accepted[0].mail
    assert (sent["Importance"], sent["From"]) == ("high", "x@example.org")
    assert sent["Subject"].startswith("web1: isp-a is down (4 rounds lost in 310 ms); new conn")


def test_a_password_is_sent_by_tls_only_to_who_proves_his_name(
    trusted: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, user = trusted.context("127.0.0.1"), "me@example.org:s3cret"
    config = replace(ADMIN, password_file=secret(tmp_path / "password"))
    with mail_receiver(context=context, user=user) as receiver:
        url = f"smtps://me%40example.org@127.0.0.1:{receiver.port}"
        assert send(replace(config, smtp=url)) == Outcome("delivered", "250 queued as 0")
        wrong = replace(config, smtp=url, password_file=secret(tmp_path / "other", "0ther"))
        assert send(wrong) == Outcome("refused", "535 5.7.8 wrong password")
        assert receiver.logins == [user, "me@example.org:0ther"]
    monkeypatch.setattr(mail, "is_loopback", lambda _: False)  # that one needs no TLS
    with mail_receiver(starttls=context, user=user) as receiver:
        url = f"smtp://me%40example.org@127.0.0.1:{receiver.port}"
        assert send(replace(config, smtp=url)).kind == "delivered"
        monkeypatch.delenv("SSL_CERT_FILE")
        outcome = send(replace(config, smtp=url))
        assert outcome.kind == "unreachable"
        assert outcome.text.startswith("talking to 127.0.0.1: its certificate isn't valid: ")
        assert receiver.logins == [user]
    with mail_receiver(user=user) as receiver:
        url = f"smtp://me%40example.org@127.0.0.1:{receiver.port}"
        said = "it offers no STARTTLS, and a password is not sent without TLS"
        assert send(replace(config, smtp=url)) == Outcome("refused", said)
        assert receiver.logins == []


@pytest.mark.parametrize("status", [451, 554])
def test_what_a_mail_server_refuses_has_not_arrived(status: int) -> None:
    with mail_receiver(lambda _: status) as receiver:
        config = replace(ADMIN, smtp=f"smtp://127.0.0.1:{receiver.port}")
        assert send(config) == Outcome("refused", f"{status} queued as 0")


# --- HTTP ---------------------------------------------------------------------------------


def test_a_webhook_gets_json_with_a_key_and_a_signature(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        url = f"http://me:s3cret@127.0.0.1:{receiver.port}/hook?a=b"
        file = secret(tmp_path / "secret", "whsec_" + base64.b64encode(b"key").decode())
        config = NotifyConfig("ops", webhook_file=secret(tmp_path / "url", url), secret_file=file)
        assert send(config) == Outcome("delivered", "200 OK")
        (received,) = receiver.accepted
    body = json.loads(received.body)
    assert {key: body[key] for key in body if key not in ("text", "events")} == {
        "version": 1,
        "id": "1-4",
        "host": "web1",
        "notifier": "ops",
        "test": False,
        "severity": "error",
        "subject": message().subject,
    }
    assert body["text"] == message().text
    assert [each["serial"] for each in body["events"]] == [1, 3, 2, 4]
    assert body["events"][0] == {
        "serial": 1,
        "at": "2026-10-28T14:02:10.250+00:00",
        "kind": "path",
        "uplink": "isp-a",
        "severity": "error",
        "text": "isp-a IPv4: up -> down (4 rounds lost in 310 ms)",
    }
    headers = received.headers
    assert received.path == "/hook?a=b"
    assert headers["authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()
    assert headers["idempotency-key"] == '"ifdefault.web1.ops.1-4"'
    # as a receiver does it: github.com/standard-webhooks/standard-webhooks, "Verifying"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    digest = base64.b64encode(hmac.digest(b"key", signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"


def test_ntfy_gets_a_title_a_priority_and_tags() -> None:
    with http_receiver() as receiver:
        config = NotifyConfig("ops", ntfy=f"http://:tk_1@127.0.0.1:{receiver.port}/topic")
        assert send(config).kind == "delivered"
        assert send(config, message("größer")).kind == "delivered"
        assert send(config, compose_test("ops", "web1", AT)).kind == "delivered"
        error, warning, test = receiver.accepted
    assert error.path == "/topic"
    assert error.body.decode() == message().text
    assert error.headers["title"] == message().subject
    assert error.headers["authorization"] == "Bearer tk_1"
    assert (error.headers["priority"], error.headers["tags"]) == ("urgent", "rotating_light")
    assert warning.headers["title"] == "=?utf-8?b?d2ViMTogZ3LDtsOfZXI=?="
    assert (warning.headers["priority"], warning.headers["tags"]) == ("high", "warning")
    assert (test.headers["priority"], test.headers["tags"]) == ("default", "white_check_mark")


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (204, "delivered", "204 No Content"),
        (302, "refused", "302 Found: it redirects to http://127.0.0.1/elsewhere; use that URL"),
        (403, "refused", "403 Forbidden: as it is"),
        (503, "refused", "503 Service Unavailable: as it is"),
        (500, "unknown", "500 Internal Server Error: as it is"),
    ],
)
def test_what_an_answer_means(status: int, kind: Kind, text: str) -> None:
    with http_receiver(lambda _: status) as receiver:
        config = NotifyConfig("ops", webhook=f"http://127.0.0.1:{receiver.port}/")
        assert send(config) == Outcome(kind, text)


def test_https_is_verified(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_receiver(context=trusted.context("127.0.0.1")) as receiver:
        config = NotifyConfig("ops", webhook=f"https://127.0.0.1:{receiver.port}/")
        assert send(config).kind == "delivered"
        monkeypatch.delenv("SSL_CERT_FILE")
        outcome = send(config)
        assert outcome.kind == "unreachable"
        assert "certificate isn't valid" in outcome.text
        assert len(receiver.all) == 1


def test_it_is_sent_from_the_address_that_is_given() -> None:
    with http_receiver() as receiver:
        config = NotifyConfig("ops", webhook=f"http://127.0.0.1:{receiver.port}/")
        assert send(config, source="127.0.0.9").kind == "delivered"
        assert receiver.accepted[0].peer == "127.0.0.9"
        assert send(config, source="::1").kind == "unreachable"
        assert send(config, source="192.0.2.1").kind == "unreachable"


# --- apprise ------------------------------------------------------------------------------


def test_apprise_sends_to_what_its_config_lists(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        file = secret(tmp_path / "apprise.conf", f"json://127.0.0.1:{receiver.port}/\n")
        assert send(NotifyConfig("ops", apprise=file)).kind == "delivered"
        body = json.loads(receiver.accepted[0].body)
    assert (body["title"], body["type"]) == (message().subject, "failure")
    assert body["message"].strip() == message().text.strip()


def test_apprise_says_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_receiver(lambda _: 403) as receiver:
        file = secret(tmp_path / "apprise.conf", f"json://127.0.0.1:{receiver.port}/\n")
        outcome = send(NotifyConfig("ops", apprise=file))
    assert outcome.kind == "refused"
    assert outcome.text.startswith("apprise: exit status 1: ")
    missing = NotifyConfig("ops", apprise="/nowhere/apprise.conf")
    said = "/nowhere/apprise.conf: can't be read: no such file or directory"
    assert send(missing) == Outcome("refused", said)
    monkeypatch.setattr(apprise, "find_program", lambda _: None)
    assert send(NotifyConfig("ops", apprise=file)).text.startswith("apprise isn't installed; ")


def test_what_a_program_prints_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "apprise"
    program.write_text("#!/bin/sh\nenv >&2; exec yes ever and ever\n")
    program.chmod(0o755)
    monkeypatch.setattr(apprise, "find_program", lambda _: str(program))
    monkeypatch.setenv("SECRET", "s3cret")
    outcome = send(NotifyConfig("ops", apprise=secret(tmp_path / "apprise.conf")))
    assert outcome.kind == "refused"
    assert len(outcome.text) <= 300
    assert "s3cret" not in outcome.text


@pytest.mark.parametrize(
    "url", ["nothing://T0KEN-OF-MINE@host/PATH-OF-MINE", "tgram://T0KEN-OF-MINE/x"]
)
def test_apprise_tells_no_secret(tmp_path: Path, url: str) -> None:
    outcome = send(NotifyConfig("ops", apprise=secret(tmp_path / "apprise.conf", url)))
    assert outcome.kind == "refused"
    assert "Unparseable" in outcome.text
    assert "OF-MINE" not in outcome.text


def test_a_server_that_repeats_secrets_tells_nobody_else(tmp_path: Path) -> None:
    url = "http://me:p%40ssword@127.0.0.1:9/topic/T0KEN?key=K3Y5"
    said = "404 /topic/T0KEN?key=K3Y5 T0KEN me:p@ssword p%40ssword key=K3Y5 s3cret" + 299 * "x"
    for config in (
        NotifyConfig("ops", webhook=url, secret_file=secret(tmp_path / "s")),
        NotifyConfig("ops", ntfy_file=secret(tmp_path / "n", url), secret_file=str(tmp_path / "s")),
    ):
        assert hide(said, config)[:40] == "404 /… … … … … …" + 24 * "x"


def test_an_url_that_is_none_was_certainly_not_used() -> None:
    outcome = send(NotifyConfig("ops", webhook="http://127.0.0.1:9/a b"))
    assert outcome.kind == "refused"
    assert "a b" not in outcome.text


# --- what fails -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "kind", "text"),
    [
        (
            replace(ADMIN, smtp="smtp://127.0.0.1:1"),
            "unreachable",
            "connecting to 127.0.0.1: connection refused",
        ),
        (
            replace(ADMIN, smtp="smtp://nowhere.invalid"),
            "unreachable",
            "looking up nowhere.invalid: ",
        ),
        (
            replace(ADMIN, password_file="/nowhere"),
            "refused",
            "/nowhere: can't be read: no such file or directory; it must be readable by uid ",
        ),
        (
            NotifyConfig("ops", webhook_file="/dev/null"),
            "refused",
            "/dev/null: is empty; write the secret on its first line",
        ),
        (
            NotifyConfig("ops", webhook_file="/proc/version"),
            "refused",
            'its URL is not valid; write it like "https://www.example.net/path"',
        ),
        (
            NotifyConfig("ops", webhook="http://:a%0d%0ab@127.0.0.1/"),
            "refused",
            "the token in its URL is not printable ASCII",
        ),
    ],
)
def test_reasons(config: NotifyConfig, kind: Kind, text: str) -> None:
    outcome = send(config)
    assert outcome.kind == kind
    assert outcome.text.startswith(text)


def test_a_url_that_is_secret_is_not_quoted(tmp_path: Path) -> None:
    url = secret(tmp_path / "url", "http://127.0.0.1/s3cret # of ops\n")
    outcome = send(NotifyConfig("ops", webhook_file=url))
    assert outcome.kind == "refused"
    assert "s3cret" not in outcome.text


def run(config: NotifyConfig, limit_s: float = 30.0) -> Outcome:
    with deliverer() as delivers:
        return asyncio.run(attempt(Delivery(config, message(), "", limit_s), delivers))


def test_an_attempt_is_a_process_with_a_limit() -> None:
    with http_receiver(lambda _: HANG) as receiver, silent_server() as port:
        hook = NotifyConfig("ops", webhook=f"http://127.0.0.1:{receiver.port}/")
        said = "no answer in 1.5 s, while sending to 127.0.0.1"
        assert run(hook, 1.5) == Outcome("unknown", said)
        assert len(receiver.all) == 1
        said = "no answer in 1 s, while connecting to 127.0.0.1"
        outcome = run(replace(ADMIN, smtp=f"smtp://127.0.0.1:{port}"), 1.0)
        assert outcome == Outcome("unreachable", said)
        receiver.answer = lambda _: 200
        assert run(hook) == Outcome("delivered", "200 OK")


def test_tls_needs_a_server_that_speaks_it() -> None:
    with http_receiver() as receiver:
        outcome = send(NotifyConfig("ops", webhook=f"https://127.0.0.1:{receiver.port}/"))
        assert outcome.kind == "unreachable"
        assert outcome.text.startswith("connecting to 127.0.0.1: TLS failed: ")


def test_an_answer_without_an_end_is_not_read_to_it() -> None:
    def talk() -> None:
        with suppress(OSError):
            connection, _ = sock.accept()
            with connection:
                while True:
                    connection.sendall(b"220-and so on\r\n" * 10_000)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        threading.Thread(target=talk, daemon=True).start()
        outcome = send(replace(ADMIN, smtp=f"smtp://127.0.0.1:{sock.getsockname()[1]}"))
    assert outcome.kind == "unreachable"
    assert outcome.text.endswith("its reply is too long")

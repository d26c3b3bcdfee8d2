"""Receivers of notifications: a mail server and an HTTP server, which remember what they were sent.

Rules: they are real servers, of this process, each with a thread for each connection. What they
answer is chosen for each message: a status, or HANG: nothing, until they are closed. As a program,
this is a mail server at the port that is given, and needs nothing but Python.
"""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG = 0


@dataclass(slots=True)
class Received:
    """`number`: how many there were before, `at`: when, in seconds since the epoch; `headers`: of
    HTTP; `peer`: who connected."""

    number: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    peer: str = ""
    path: str = ""
    at: float = field(default_factory=time.time)

    @property
    def mail(self) -> EmailMessage:
        return BytesParser(policy=default).parsebytes(self.body)


class Receiver:
    """`answer`: the status for a message."""

    def __init__(self, answer: Callable[[Received], int]) -> None:
        self.all: list[Received] = []
        self.accepted: list[Received] = []  # those that were answered with success
        self.answer = answer
        self.closing = threading.Event()
        self.logins: list[str] = []
        self.port = 0
        self._lock = threading.Lock()

    def take(self, received: Received) -> int:
        with self._lock:
            received.number = len(self.all)
            self.all.append(received)
            status = self.answer(received)
            if 200 <= status < 300:
                self.accepted.append(received)
        if status == HANG:
            self.closing.wait()
        return status


@contextmanager
def http_receiver(
    answer: Callable[[Received], int] = lambda _: 200, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    receiver = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            received = Received(0, body, headers, self.client_address[0], self.path)
            status = receiver.take(received)
            if status != HANG:
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1/elsewhere")
                self.end_headers()
                self.wfile.write(b"as\nit is")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed."""

    with _serving(receiver, Server(("127.0.0.1", 0), Handler), context):
        yield receiver


class _MailServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    receiver: Receiver
    starttls: ssl.SSLContext | None
    user: str

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed."""


class _Mail(socketserver.StreamRequestHandler):
    server: _MailServer

    def handle(self) -> None:
        self.may_send, self.is_tls = not self.server.user, False
        self.say("220 mx.example.org ESMTP")
        commands = {"EHLO": self.ehlo, "STARTTLS": self.starttls, "AUTH": self.auth}
        commands |= {"MAIL": self.mail, "DATA": self.data}
        while line := self.rfile.readline().decode().strip():
            if command := commands.get(line.split()[0].upper()):
                command(line)
            else:
                self.say("250 ok")

    def finish(self) -> None:
        super().finish()
        self.request.close()  # its own, after STARTTLS

    def ehlo(self, _: str) -> None:
        self.say("250-mx.example.org")
        if self.server.starttls and not self.is_tls:
            self.say("250-STARTTLS")
        if self.server.user:
            self.say("250-AUTH PLAIN")
        self.say("250 8BITMIME")

    def starttls(self, _: str) -> None:
        assert self.server.starttls
        self.say("220 go on")
        self.request = self.server.starttls.wrap_socket(self.request, server_side=True)
        self.setup()
        self.is_tls = True

    def auth(self, line: str) -> None:
        given = ":".join(base64.b64decode(line.split()[-1]).decode().split("\0")[1:])
        self.server.receiver.logins.append(given)
        self.may_send = given == self.server.user
        self.say("235 ok" if self.may_send else "535 5.7.8 wrong password")

    def mail(self, _: str) -> None:
        self.say("250 ok" if self.may_send else "530 5.7.0 authenticate first")

    def data(self, _: str) -> None:
        self.say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b".") else line)
        received = Received(0, b"".join(lines), peer=self.client_address[0])
        status = self.server.receiver.take(received)
        if status != HANG:
            self.say(f"{status} queued as {received.number}")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def mail_receiver(
    answer: Callable[[Received], int] = lambda _: 250,
    *,
    context: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
    user: str = "",
    address: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[Receiver]:
    """`context`: for TLS at once; `user`: "name:password", the only one who may send."""
    receiver = Receiver(answer)
    server = _MailServer((address, port), _Mail)
    server.receiver, server.starttls, server.user = receiver, starttls, user
    with _serving(receiver, server, context):
        yield receiver


@contextmanager
def _serving(
    receiver: Receiver, server: socketserver.TCPServer, context: ssl.SSLContext | None
) -> Iterator[None]:
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(0.02))
    thread.start()
    try:
        yield
    finally:
        receiver.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


if __name__ == "__main__":
    with mail_receiver(port=int(sys.argv[1])) as it:
        it.closing.wait()

"""A connection of the engine to a DNS server, which outlives it.

Rules: a server sends the sockets that it answers on, and then Ready. Whoever connects is obeyed, so
root alone may.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ifdefault.daemon.process.bounds import Allowance, Owed
from ifdefault.daemon.process.spawn import (
    READY_S,
    Child,
    privileges_kept,
)
from ifdefault.ipc import channel, privileges
from ifdefault.ipc.channel import Channel
from ifdefault.ipc.child import environment, python
from ifdefault.ipc.control.client import credentials
from ifdefault.ipc.messages import (
    DNS_VERSION,
    FROM_DNS_SERVER,
    MAX_BYTES,
    FromDnsServer,
    Leave,
    Listen,
    Message,
    Pong,
    Ready,
    Served,
    encode,
)
from ifdefault.kernel.open_dns_sockets import discard, is_dns_server, listens, set_aside
from ifdefault.model.errors import HostError, Problem

_ANSWER_S = 5.0  # for a server that runs, or that systemd starts
_STEP_S = 0.5
_BACKLOG = 4
MOST_SOCKETS = 7000  # of the 8192 files of a DNS server; the others are for connections
# It reports once a second; while the engine is stopped, reports queue.
_REPORTS, _REPORTS_PER_S = 2048, 2.0
Held = list[tuple[Listen, socket.socket]]


class Connection:
    """To a DNS server. `receive(connection, message)` is called once it is ready, and
    `ended(connection, cause)` once, if it had been."""

    def __init__(
        self,
        path: Path,
        receive: Callable[[Connection, Served | Pong], None],
        ended: Callable[[Connection, str], None],
    ) -> None:
        """OSError if nothing listens there."""
        self.path, self._receive, self._ended = path, receive, ended
        self._owed, self._reports = Owed(), Allowance(_REPORTS, _REPORTS_PER_S)
        self.held: Held = []
        self.closed = False
        self.version = ""
        self.drained: Callable[[], None] = lambda: None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sock = channel.connect(path)
        self.pid = credentials(sock).pid
        self._channel: Channel[FromDnsServer] = Channel(
            sock,
            FROM_DNS_SERVER,
            self._on_message,
            self._channel_ended,
            sockets=True,
            drained=lambda: self.drained(),
        )

    @property
    def waits(self) -> bool:
        return self._channel.waits

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        self._owed.ask(message)
        self._channel.send(message, fds)

    def close(self) -> None:
        """Let it go on without us; `ended` isn't called."""
        self.closed = True
        self._channel.close()
        if not self.ready.done():
            self.ready.cancel()
        for _, sock in self.held:
            sock.close()
        self.held.clear()

    def kill(self) -> None:
        """Kill it because it misbehaved. Its pid is what it says; before that, who listened last,
        which may be systemd or this process. Nothing else may be killed."""
        if is_dns_server(self.pid):
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    def _on_message(self, message: FromDnsServer, sock: socket.socket | None) -> None:
        match message:
            case Listen() if not self.ready.done() and len(self.held) < MOST_SOCKETS:
                if sock is not None and listens(sock, message.transport, message.address):
                    self.held.append((message, set_aside(sock)))
                elif sock is not None:
                    discard(sock)
            case Ready(pid, version) if not self.ready.done():
                if kept := privileges_kept(pid, privileges.KEEP):
                    self._channel.close()
                    self._channel_ended(kept)
                    return
                self.pid, self.version = pid, version
                # it is only to leave, and may report what this version doesn't know
                self._channel.skips_invalid = version != DNS_VERSION
                self.ready.set_result(None)
            case Served() if self.ready.done() and self._reports.take(time.monotonic()):
                self._receive(self, message)
            case Pong() if self.ready.done() and self._owed.answer():
                self._receive(self, message)
            case _:
                self._channel.close()
                if sock is not None:
                    discard(sock)
                self._channel_ended("it sent a message out of turn")

    def _channel_ended(self, cause: str) -> None:
        if self.ready.done():
            self._ended(self, cause)
        else:
            self.ready.set_exception(
                HostError(
                    Problem("the DNS server", f"isn't ready: {cause or 'it ended'}", "see its log")
                )
            )


Receive = Callable[[Connection, Served | Pong], None]
Ended = Callable[[Connection, str], None]


async def connect(
    path: Path, receive: Receive, ended: Ended, patience_s: float = _ANSWER_S
) -> Connection:
    """Connect to a server that runs, or that systemd starts. OSError if nothing listens there;
    HostError if it isn't ready in time."""
    connection = Connection(path, receive, ended)
    try:
        for _ in range(round(patience_s / _STEP_S)):  # time in which we were stopped doesn't count
            if (await asyncio.wait([connection.ready], timeout=_STEP_S))[0]:
                connection.ready.result()
                return connection
        connection.kill()  # it would keep the ports
        what = f"isn't ready after {patience_s:g} s"
        raise HostError(Problem("the DNS server", what, "see its log"))
    except BaseException:
        connection.close()
        raise


async def start(
    path: Path,
    user: tuple[int, int],
    receive: Receive,
    ended: Ended,
    child_ended: Callable[[int], None],
) -> Connection:
    """Start a server as (uid, gid), see `privileges.possible`; HostError if it isn't ready in
    time."""
    with _listener(path) as listener:
        fds = [listener.fileno()]
        command = python("ifdefault.frontend.dns_main", *fds, *user)
        child = Child(command, environment(), child_ended, fds=fds, session=True)
    try:
        return await connect(path, receive, ended, READY_S)
    except BaseException:
        child.kill()
        raise


def dismiss(path: Path) -> None:
    """Have a server leave whose messages can't be understood: it would keep the ports."""
    with suppress(OSError):
        sock = channel.connect(path)
        # it reads that only while it can send
        asyncio.get_running_loop().call_later(_ANSWER_S, sock.close)
        sock.send(encode(Leave(0)))


def end(paths: Iterable[Path]) -> None:
    """End servers, and wait until they have ended."""
    for path in paths:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            end_s = time.monotonic() + _ANSWER_S
            sock.settimeout(_ANSWER_S)
            sock.connect(str(path))
            sock.send(encode(Leave(0)))
            while sock.recv(MAX_BYTES) and time.monotonic() < end_s:  # until it has ended
                pass


def _listener(path: Path) -> socket.socket:
    """A new socket for engines to connect to, for root alone."""
    with suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock

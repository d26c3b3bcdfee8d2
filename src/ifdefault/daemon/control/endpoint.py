"""One of the engine's sockets: accepts clients, reads their requests, and writes the replies.

Rules: nothing blocks, and a client that is too slow is disconnected. All clients of an endpoint are
served through one descriptor (`ipc.fair_poll`), in the endpoint's share of the loop's time, so that
other endpoints don't wait for them. Room for a new client is made at the expense of the user who
has most clients, apart from those whose replies are being prepared: the one that was silent longest
is disconnected. An invalid request ends its connection and affects no other. A client that waits
for news costs nothing until there is some; it may go away meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from ifdefault.daemon.control.parse import BadRequest, refusal
from ifdefault.ipc import log, tasks
from ifdefault.ipc.control.client import Peer, credentials
from ifdefault.ipc.control.protocol import encode_reply
from ifdefault.ipc.fair_poll import IDLE, READ, WRITE, FairPoll
from ifdefault.model.errors import HostError, Problem, reason

MOST_CLIENTS, MOST_OF_A_USER = 128, 32
LONGEST_REQUEST = 4096
PATIENCE_S = 5.0  # for a client to send its request, and to read its reply
TURN_S = 0.005
_BACKLOG = 128
_NO_FILES_S = 1.0  # how long to wait for a descriptor to become free


@dataclass(frozen=True, slots=True)
class Wait:
    """The reply is what `answer` returns once there is an event with a serial greater than `after`,
    or after `wait_s`."""

    after: int
    wait_s: float
    answer: Callable[[], bytes]


Answer = bytes | Wait | Coroutine[Any, Any, bytes]  # the reply, when to make it, what prepares it


@dataclass(eq=False, slots=True)
class Client:
    """`since_s`: when it last sent or read something."""

    sock: socket.socket
    peer: Peer
    since_s: float
    request: bytearray = field(default_factory=bytearray)  # what was received of it
    reply: memoryview = field(default_factory=lambda: memoryview(b""))  # what is left of it
    task: asyncio.Task[None] | None = None  # that prepares the reply
    wait: Wait | None = None
    due_s: float = inf  # when it has waited long enough


class Endpoint:
    """`answer` is called with each line; BadRequest refuses it."""

    def __init__(
        self, path: Path, mode: int, answer: Callable[[bytes, Peer], Answer], share: float = 1.0
    ) -> None:
        self._path, self._mode, self._answer, self._share = path, mode, answer, share
        self.clients: set[Client] = set()
        self._listener: socket.socket | None = None
        self._inode = 0
        self._expiry: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen; replaces the socket of a dead engine."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise HostError(Problem(str(self._path), "is not a socket", "remove it"))
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(self._path))
            self._path.chmod(self._mode)
            self._inode = self._path.stat().st_ino
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            what = f"can't be created: {reason(error)}"
            raise HostError(Problem(str(self._path), what)) from error
        self._listener = listener
        self._poll = FairPoll(TURN_S, self._share)
        self._poll.add(listener, self._accept)

    async def close(self) -> None:
        """Stop listening, end all connections, and remove the socket."""
        with suppress(OSError):
            if self._inode and self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._inode = 0
        if self._listener is None:
            return
        self._poll.remove(self._listener)
        self._listener.close()
        self._listener = None
        replying = [client.task for client in self.clients if client.task]
        for client in [*self.clients]:
            if client.wait:
                self._end_wait(client)
            self._drop(client)
        self._poll.close()
        await tasks.end(*replying)
        if self._expiry:
            self._expiry.cancel()

    # --- clients --------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            self._poll.pause(_NO_FILES_S)
            return
        sock.setblocking(False)
        client = Client(sock, credentials(sock), time.monotonic())
        has_room = self._make_room(client.peer.uid)
        self.clients.add(client)
        self._poll.add(sock, partial(self._serve, client))
        if not has_room:
            self._refuse(client, _too_many(client.peer.uid))
        if self._expiry is None:
            self._expire()

    def _make_room(self, uid: int) -> bool:
        """For a new client of a user. False if all that could make room are waiting for replies."""
        silent = [client for client in self.clients if client.task is None]
        if sum(client.peer.uid == uid for client in self.clients) < MOST_OF_A_USER:
            if len(self.clients) < MOST_CLIENTS:
                return True
            count = Counter(client.peer.uid for client in silent)
            uid = max(count, key=lambda uid: count[uid], default=uid)
        silent = [client for client in silent if client.peer.uid == uid]
        if silent:
            self._refuse(min(silent, key=lambda client: client.since_s), _too_many(uid))
        return bool(silent)

    def _expire(self) -> None:
        """Disconnect clients that are too slow, now and again as long as there are clients. Those
        that have waited long enough are answered."""
        now = time.monotonic()
        late_s = now - PATIENCE_S
        self._wake(lambda client: client.due_s <= now)
        idle = [c for c in self.clients if c.task is None and c.wait is None]
        for client in [c for c in idle if c.since_s <= late_s]:
            what = f"incomplete after {PATIENCE_S:g} s"
            self._refuse(client, BadRequest(Problem("request", what, "send it at once")))
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(PATIENCE_S / 5, self._expire) if self.clients else None

    def _refuse(self, client: Client, error: HostError) -> None:
        """Disconnect a client; it is told why if it can be told at once."""
        if not client.reply:
            with suppress(OSError):
                client.sock.send(encode_reply(refusal(error)))
        self._drop(client)

    def _drop(self, client: Client) -> None:
        self._poll.remove(client.sock)
        client.sock.close()
        self.clients.discard(client)

    # --- requests and replies ---------------------------------------------------------------

    def _serve(self, client: Client) -> None:
        try:
            if client.reply:
                self._send(client)
            elif client.wait and client.due_s < inf:
                self._drop(client)  # it went away
            elif client.wait:
                self._end_wait(client)
            else:
                self._receive(client)
        except BlockingIOError:
            pass
        except OSError:  # disconnected
            self._drop(client)
        except BadRequest as error:
            self._refuse(client, error)
        except Exception as error:
            log.exception(error, "control")
            self._drop(client)

    def _receive(self, client: Client) -> None:
        """Take one line at most: the next one waits its turn."""
        waiting = client.sock.recv(LONGEST_REQUEST, socket.MSG_PEEK)
        if not waiting:
            if client.request:
                raise BadRequest(Problem("request", "truncated", "end it with a newline"))
            self._drop(client)
            return
        client.request += client.sock.recv(waiting.find(b"\n") + 1 or len(waiting))
        client.since_s = time.monotonic()
        if client.request.endswith(b"\n"):
            line = bytes(client.request)
            client.request.clear()
            self._answer_line(client, line)
        elif len(client.request) >= LONGEST_REQUEST:
            what = f"longer than {LONGEST_REQUEST} bytes"
            raise BadRequest(Problem("request", what, "send a shorter one"))

    def _answer_line(self, client: Client, line: bytes) -> None:
        answer = self._answer(line, client.peer)
        if isinstance(answer, bytes):
            self._reply(client, answer)
        elif isinstance(answer, Wait):
            client.wait, client.due_s = answer, time.monotonic() + answer.wait_s
            self._poll.change(client.sock, IDLE)
        else:
            self._poll.remove(client.sock)  # it reads and sends nothing meanwhile
            client.task = tasks.start(self._wait(client, answer))

    def news(self, last: int) -> None:
        """Answer those that wait for an event up to this one, in our share of the time."""
        self._wake(lambda client: client.wait is not None and client.wait.after < last)

    def _wake(self, is_due: Callable[[Client], bool]) -> None:
        for client in self.clients:
            if client.due_s < inf and is_due(client):
                client.due_s = inf
                self._poll.change(client.sock, WRITE)

    def _end_wait(self, client: Client) -> None:
        assert client.wait is not None
        wait, client.wait = client.wait, None
        client.since_s = time.monotonic()
        with suppress(OSError):  # disconnected: the poll will report it
            self._reply(client, wait.answer())

    async def _wait(self, client: Client, answer: Coroutine[Any, Any, bytes]) -> None:
        reply = await answer
        client.task = None
        client.since_s = time.monotonic()
        self._poll.add(client.sock, partial(self._serve, client))
        with suppress(OSError):  # disconnected: the poll will report it
            self._reply(client, reply)

    def _reply(self, client: Client, reply: bytes) -> None:
        client.reply = memoryview(reply)
        self._send(client)

    def _send(self, client: Client) -> None:
        with suppress(BlockingIOError):
            client.reply = client.reply[client.sock.send(client.reply) :]
            client.since_s = time.monotonic()
        self._poll.change(client.sock, WRITE if client.reply else READ)


def _too_many(uid: int) -> HostError:
    who = "other clients" if uid in (0, os.geteuid()) else f"clients of uid {uid}"
    return HostError(Problem("control", f"too many {who} are connected", "try again"))

"""The channel between engine and frontend: packets with messages, and the sockets that go with
some.

Rules: sending never waits. Outcomes that one turn of the loop brought go in one packet. While the
peer reads too slowly messages queue, and when the queue is full the oldest that may be dropped is
dropped and told (`dropped`); a peer for which even that doesn't help is given up. Whatever ends the
channel, the end of the peer or a word that is no message, is told once (`ended`), with its cause. A
descriptor that no message asked for is closed.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

from ifdefault.ipc.messages import (
    MAX_BYTES,
    MAX_TOGETHER,
    BadMessage,
    M,
    Message,
    Outcome,
    Send,
    decode,
    encode,
    wants_socket,
)
from ifdefault.model.errors import reason

QUEUE = 1024
_TURN = 64  # messages read at one wake-up: others want their turn
# One descriptor at most; CMSG_SPACE would have room for two.
_ANCILLARY_BYTES = socket.CMSG_LEN(4)
_DROPPABLE = (Send, Outcome)  # they tell of a moment; all others of what lasts
_SHORT = {errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}  # of our host, for now


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel."""
    kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socketpair(socket.AF_UNIX, kind)


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    packet: bytes
    fds: tuple[int, ...]  # our own duplicates

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Channel(Generic[M]):
    """One end, on the running loop. `hear` gets each message, with its socket if it wants one and
    one came (it may not: this process may have too many open); the socket is the hearer's.

    `allowed` are the types to be heard; with `sockets` False none is ever received.
    """

    def __init__(
        self,
        sock: socket.socket,
        allowed: Sequence[type[M]],
        hear: Callable[[M, socket.socket | None], None],
        ended: Callable[[str], None],
        *,
        sockets: bool = False,
        dropped: Callable[[Message], None] = lambda message: None,
    ) -> None:
        self._sock = sock
        self._allowed = frozenset(allowed)
        self._hear, self._ended, self._dropped = hear, ended, dropped
        self._ancillary = _ANCILLARY_BYTES if sockets else 0
        self._queue: deque[_Waiting] = deque()
        self._together: list[Message] = []
        self._loop = asyncio.get_running_loop()
        self._open = True
        self.drops = 0
        sock.setblocking(False)
        self._loop.add_reader(sock, self._read)

    # --- sending --------------------------------------------------------------------------

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send, or queue. The descriptors stay the caller's. No word once the channel ended."""
        if isinstance(message, Outcome):
            if not self._together:
                self._loop.call_soon(self._send_together)
            self._together.append(message)
            if len(self._together) < MAX_TOGETHER:
                return
            self._send_together()
            return
        self._send_together()  # what was said before goes before
        packet = encode(message)
        if self._open and (self._queue or not self._put([message], packet, fds)):
            self._wait(message, packet, fds)

    def _send_together(self) -> None:
        messages, self._together = self._together, []
        if not messages or not self._open:
            return
        if self._queue or not self._put(messages, encode(*messages), ()):
            for message in messages:
                self._wait(message, encode(message), ())

    def _wait(self, message: Message, packet: bytes, fds: Sequence[int]) -> None:
        """Queue what the peer is too slow for."""
        if not self._open:
            return
        if not self._queue:
            self._loop.add_writer(self._sock, self._flush)
        try:
            own = tuple([os.dup(fd) for fd in fds])
        except OSError:
            self._drop(message)
            return
        self._queue.append(_Waiting(message, packet, own))
        if len(self._queue) > QUEUE:
            self._drop_oldest()

    def _put(self, messages: Sequence[Message], packet: bytes, fds: Sequence[int]) -> bool:
        """Whether nothing more is to be done for this packet; else it must wait."""
        try:
            if fds:
                socket.send_fds(self._sock, [packet], fds, socket.MSG_NOSIGNAL)
            else:
                self._sock.send(packet, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _SHORT and all(isinstance(m, _DROPPABLE) for m in messages):
                for message in messages:
                    self._drop(message)
            else:
                self._end(_cause(error))
        return True

    def _flush(self) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            if not self._put([waiting.message], waiting.packet, waiting.fds):
                self._queue.appendleft(waiting)
                return
            waiting.close()
        if self._open:
            self._loop.remove_writer(self._sock)

    def _drop_oldest(self) -> None:
        for place, waiting in enumerate(self._queue):
            if isinstance(waiting.message, _DROPPABLE):
                del self._queue[place]
                waiting.close()
                self._drop(waiting.message)
                return
        self._end("it doesn't read what it is told")

    def _drop(self, message: Message) -> None:
        self.drops += 1
        self._dropped(message)

    # --- hearing --------------------------------------------------------------------------

    def _read(self) -> None:
        heard = 0
        while self._open and heard < _TURN:
            try:
                packet, ancillary, _, _ = self._sock.recvmsg(
                    MAX_BYTES + 1, self._ancillary, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError as error:
                self._end(_cause(error))
                return
            fds = _descriptors(ancillary)
            try:
                heard += self._take(packet, fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _take(self, packet: bytes, fds: array.array[int]) -> int:
        """Hear one packet, of so many messages. What is left in `fds` nobody wanted."""
        if not packet:
            self._end("")
            return 0
        try:
            messages = decode(packet, self._allowed)
        except BadMessage as error:
            self._end(f"it sent what is no message: {error}")
            return 0
        for message in messages:
            if not self._open:  # the one before ended it
                break
            sock = None
            if fds and wants_socket(message):
                with suppress(OSError):  # no socket at all
                    sock = socket.socket(fileno=fds[0])
                    fds.pop(0)
                    sock.setblocking(False)
            self._hear(message, sock)
        return len(messages)

    # --- the end --------------------------------------------------------------------------

    def close(self) -> None:
        """End it from this side, silently."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            while self._queue:
                self._queue.popleft().close()

    def _end(self, cause: str) -> None:
        if self._open:
            self.close()
            self._ended(cause)


def _cause(error: OSError) -> str:
    return "" if isinstance(error, ConnectionError) else reason(error)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> array.array[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds

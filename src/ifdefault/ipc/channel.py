"""The channel between engine and frontend: packets of messages, some with a socket.

Rules: sending never blocks. Outcomes of one turn of the loop are sent in one packet. If the peer
reads too slowly, messages queue (`waits`); whoever has many to send, or sockets, goes on when they
are sent (`drained`). If more than QUEUE wait, the oldest message that may be dropped is dropped
(`dropped`); those that may not wait, up to a limit at which the channel ends: pings tell whether a
peer hangs. `ended` is called once with the cause: the peer's end, an error or an invalid message. A
descriptor that no message needs is closed.
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
from pathlib import Path
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
_LASTING_MAX = 1 << 16  # that wait and may not be dropped
_TURN = 64  # messages read at one wake-up, before other callbacks run
# One descriptor at most; CMSG_SPACE would have room for two.
_ANCILLARY_BYTES = socket.CMSG_LEN(4)
_DROPPABLE = (Send, Outcome)  # only of momentary interest; all others change lasting state
_SHORTAGE = {errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}  # of this host, temporary


_KIND = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel."""
    return socket.socketpair(socket.AF_UNIX, _KIND)


def connect(path: Path) -> socket.socket:
    """An end of a channel to who listens there. OSError if nobody does."""
    sock = socket.socket(socket.AF_UNIX, _KIND)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    packet: bytes
    fds: tuple[int, ...]  # our own duplicates

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Channel(Generic[M]):
    """One end, on the running loop. `receive` is called with each message and its socket, if it
    needs one and one was received (not if this process has too many files open). The receiver has
    to close the socket.

    `allowed`: the valid message types. With `sockets` False no socket is received.
    """

    def __init__(
        self,
        sock: socket.socket,
        allowed: Sequence[type[M]],
        receive: Callable[[M, socket.socket | None], None],
        ended: Callable[[str], None],
        *,
        sockets: bool = False,
        dropped: Callable[[Message], None] = lambda message: None,
        drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._sock = sock
        self._allowed = frozenset(allowed)
        self._receive, self._ended, self._dropped = receive, ended, dropped
        self._drained = drained
        self._ancillary = _ANCILLARY_BYTES if sockets else 0
        self._queue: deque[_Waiting] = deque()
        self._droppable = 0  # of those in the queue
        self._together: list[Message] = []
        self._loop = asyncio.get_running_loop()
        self._open = True
        self.drops = 0
        self.skips_invalid = (
            False  # messages, rather than ending: those of a peer of another version
        )
        sock.setblocking(False)
        self._loop.add_reader(sock, self._read)

    # --- sending --------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether the peer has to read before more can be sent to it."""
        return bool(self._queue)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send, or queue. The caller keeps the descriptors. Does nothing once the channel ended."""
        if isinstance(message, Outcome):
            if not self._together:
                self._loop.call_soon(self._send_together)
            self._together.append(message)
            if len(self._together) < MAX_TOGETHER:
                return
            self._send_together()
            return
        self._send_together()  # keep the order
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
        """Queue a message, since the peer is too slow."""
        if not self._open:
            return
        if not self._queue:
            self._loop.add_writer(self._sock, self._flush)
        while True:
            try:
                own = tuple([os.dup(fd) for fd in fds])
                break
            except OSError:  # no descriptor is left: the oldest that waits gives up its own
                if not self._queue:
                    self._drop(message)
                    return
                self._drop_oldest()
        self._queue.append(_Waiting(message, packet, own))
        self._droppable += isinstance(message, _DROPPABLE)
        if len(self._queue) > (QUEUE if self._droppable else _LASTING_MAX):
            self._drop_oldest()

    def _put(self, messages: Sequence[Message], packet: bytes, fds: Sequence[int]) -> bool:
        """Send a packet. False if it has to wait; after an error it is dropped, or the channel
        ended."""
        try:
            if fds:
                socket.send_fds(self._sock, [packet], fds, socket.MSG_NOSIGNAL)
            else:
                self._sock.send(packet, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except ConnectionError:
            self._read()  # what the peer sent before it ended the channel, and then its end
        except OSError as error:
            if error.errno in _SHORTAGE and all(isinstance(m, _DROPPABLE) for m in messages):
                for message in messages:
                    self._drop(message)
            else:
                self._end(reason(error))
        return True

    def _flush(self) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            if not self._put([waiting.message], waiting.packet, waiting.fds):
                self._queue.appendleft(waiting)
                return
            self._droppable -= isinstance(waiting.message, _DROPPABLE)
            waiting.close()
        if self._open:
            self._loop.remove_writer(self._sock)
            self._drained()

    def _drop_oldest(self) -> None:
        for index, waiting in enumerate(self._queue):
            if isinstance(waiting.message, _DROPPABLE):
                del self._queue[index]
                self._droppable -= 1
                waiting.close()
                self._drop(waiting.message)
                return
        self._end("it doesn't read its messages")

    def _drop(self, message: Message) -> None:
        self.drops += 1
        self._dropped(message)

    # --- receiving ------------------------------------------------------------------------

    def _read(self) -> None:
        received = 0
        while self._open and received < _TURN:
            try:
                packet, ancillary, _, _ = self._sock.recvmsg(
                    MAX_BYTES + 1, self._ancillary, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except ConnectionResetError:  # once, if the peer ended it with messages unread
                continue  # what it sent before can be read
            except OSError as error:
                self._end(reason(error))
                return
            fds = _descriptors(ancillary)
            try:
                received += self._decode(packet, fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def _decode(self, packet: bytes, fds: array.array[int]) -> int:
        """Deliver the messages of a packet, and return their number. Removes a socket that is
        delivered from `fds`."""
        if not packet:
            self._end("")
            return 0
        try:
            messages = decode(packet, self._allowed)
        except BadMessage as error:
            if not self.skips_invalid:
                self._end(f"it sent an invalid message: {error}")
            return 1
        for message in messages:
            if not self._open:  # the one before ended it
                break
            sock = None
            if fds and wants_socket(message):
                with suppress(OSError):  # not a socket
                    sock = socket.socket(fileno=fds[0])
                    fds.pop(0)
                    sock.setblocking(False)
            self._receive(message, sock)
        return len(messages)

    # --- the end --------------------------------------------------------------------------

    def close(self) -> None:
        """End it from this side, without calling `ended`."""
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


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> array.array[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds

"""DNS over TCP (RFC 7766): many connections, none of which can do harm.

Rules: what counts is the whole exchange, not the single byte: a connection on which none came to
its end for a while is ended, the sooner the more there are. Where there are too many, of all or of
one network's, the longest idle of those makes room. One whose answers aren't taken isn't read
either, so that each holds at most a chunk of queries and a batch of answers.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice

from ifdefault.frontend.server.fair_poll import IDLE, READ, WRITE, Turns

MOST, MOST_OF_A_NETWORK = 1000, 100
TURN_S = 0.001  # half of what UDP has: a flood over TCP shall not silence it
IDLE_S, SHORT_IDLE_S = 10.0, 2.0  # the latter while more than half of MOST are there
_SWEEP_S = 1.0
_ACCEPTS = 8  # before another socket has its turn
_CHUNK_BYTES = 4096  # read at once; a longer query isn't one
_BATCH_BYTES = 4096  # of answers, before they are sent
_PROGRESS_BYTES = 1 << 15  # of a transfer, that count as an exchange
_BUFFER_BYTES = 1 << 14  # the kernel's, each way, which would grow to megabytes
_PAUSE_S = 0.2  # for the host to have descriptors and memory again
_BY_RST = struct.pack("=ii", 1, 0)  # SO_LINGER
StreamResponder = Callable[[bytes, str, str], tuple[bytes, ...]]  # query, client, uplink
UplinkOf = Callable[[socket.socket], str]  # by which a connection came in


class Streams:
    """All connections. `answer` says nothing to what is no query, which ends the connection."""

    def __init__(self, answer: StreamResponder) -> None:
        self.answer = answer
        self.turns = Turns(TURN_S)  # for listeners too
        # each from the longest idle on
        self._all: dict[_TcpConnection, None] = {}
        self._networks: dict[bytes, dict[_TcpConnection, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def close(self) -> None:
        for stream in list(self._all):
            self.end(stream)
        if self._timer is not None:
            self._timer.cancel()
        self.turns.close()

    def listen(self, listener: socket.socket, uplink_of: UplinkOf) -> None:
        """Serve who connects to a listener."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # connections inherit them
            listener.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self.turns.add(listener, partial(self._accept, listener, uplink_of))

    def _accept(self, listener: socket.socket, uplink_of: UplinkOf) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(listener)
                    return
                continue  # that one has gone already
            try:
                sock.setblocking(False)
                uplink = uplink_of(sock)
            except OSError:
                sock.close()
                continue
            self._add(_TcpConnection(self, sock, peer[0], uplink))

    def _pause(self, listener: socket.socket) -> None:
        """This host has no descriptor or memory left: make room, and don't ask all the time."""
        for stream in list(islice(self._all, _ACCEPTS)):
            self.end(stream)
        self.turns.change(listener, IDLE)
        loop = asyncio.get_running_loop()
        loop.call_later(_PAUSE_S, partial(self._resume, listener))

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self.turns.change(listener, READ)

    def _add(self, stream: _TcpConnection) -> None:
        neighbours = self._networks.setdefault(stream.network, {})
        if len(neighbours) >= MOST_OF_A_NETWORK:
            self.end(next(iter(neighbours)))
        elif len(self._all) >= MOST:
            self.end(next(iter(self._all)))
        neighbours = self._networks.setdefault(stream.network, neighbours)
        self._all[stream] = neighbours[stream] = None
        self.turns.add(stream.sock, stream.go_on)
        if self._timer is None:
            self._sweep()

    def touch(self, stream: _TcpConnection) -> None:
        """An exchange came to its end: now it is the least idle."""
        stream.since_s = time.monotonic()
        for order in (self._all, self._networks[stream.network]):
            order[stream] = order.pop(stream)

    def finish(self, stream: _TcpConnection) -> None:
        """Its client has no more to ask, but may have to take answers yet."""
        if not stream.untaken:
            self.end(stream)
            return
        self.turns.remove(stream.sock)
        with suppress(OSError):
            stream.sock.shutdown(socket.SHUT_WR)

    def end(self, stream: _TcpConnection) -> None:
        del self._all[stream]
        neighbours = self._networks[stream.network]
        del neighbours[stream]
        if not neighbours:
            del self._networks[stream.network]
        self.turns.remove(stream.sock)
        stream.close()

    def _sweep(self) -> None:
        """End those that are idle for too long, as long as there are any."""
        most_s = SHORT_IDLE_S if len(self._all) > MOST // 2 else IDLE_S
        early_s = time.monotonic() - most_s
        while self._all and (stream := next(iter(self._all))).since_s < early_s:
            self.end(stream)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SWEEP_S, self._sweep) if self._all else None


class _TcpConnection:
    __slots__ = (
        *("_busy", "_queries", "_sent", "_streams", "_to_send", "_uplink", "client"),
        *("network", "since_s", "sock"),
    )

    def __init__(self, streams: Streams, sock: socket.socket, client: str, uplink: str) -> None:
        self._streams, self.sock, self.client, self._uplink = streams, sock, client, uplink
        self.network = _network(client)
        self.since_s = time.monotonic()
        self._queries, self._to_send = bytearray(), bytearray()
        self._sent = 0  # bytes since the last exchange
        self._busy = False

    def close(self) -> None:
        with suppress(OSError):
            if self.untaken:  # or the kernel would go on offering it
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BY_RST)
        self.sock.close()

    @property
    def untaken(self) -> int:
        """Bytes that the client has not acknowledged."""
        waiting: int = struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))[0]
        return waiting + len(self._to_send)

    def go_on(self) -> None:
        """Its turn: send what waits, else answer what was read, else read."""
        if not self._to_send and not (self._size() or self._read()):
            return
        if not self._to_send and not self._answer():
            self._streams.end(self)
            return
        if self._to_send and not self._send():
            return
        busy = bool(self._to_send or self._size())
        if busy != self._busy:
            self._busy = busy
            self._streams.turns.change(self.sock, WRITE if busy else READ)

    def _size(self) -> int:
        """How long the first query is with its length before it; 0 while it isn't whole."""
        if len(self._queries) < 2:
            return 0
        size = 2 + int.from_bytes(self._queries[:2], "big")
        return size if len(self._queries) >= size else 0

    def _read(self) -> bool:
        """Whether something came; ends the connection at its end."""
        try:
            data = self.sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._streams.end(self)
            return False
        self._queries += data
        if not data:
            self._streams.finish(self)
        elif len(self._queries) > 2 * _CHUNK_BYTES:
            self._streams.end(self)
            return False
        return bool(data)

    def _answer(self) -> bool:
        """Answer whole queries, in order, a batch at a time; False where one isn't answered."""
        while (size := self._size()) and len(self._to_send) < _BATCH_BYTES:
            query = bytes(self._queries[2:size])
            del self._queries[:size]
            answers = self._streams.answer(query, self.client, self._uplink)
            if not answers:
                return False
            for answer in answers:
                self._to_send += len(answer).to_bytes(2, "big") + answer
        return True

    def _send(self) -> bool:
        """Send what the kernel takes; False if the connection has ended."""
        try:
            taken = self.sock.send(self._to_send, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return True
        except OSError:
            self._streams.end(self)
            return False
        del self._to_send[:taken]
        self._sent += taken
        if not self._to_send or self._sent >= _PROGRESS_BYTES:
            self._sent = 0
            self._streams.touch(self)
        return True


def _network(client: str) -> bytes:
    """A /24 or a /56: what one customer of a provider may have."""
    if ":" not in client:
        return socket.inet_pton(socket.AF_INET, client)[:3]
    return socket.inet_pton(socket.AF_INET6, client.partition("%")[0])[:7]

"""DNS over TCP (RFC 7766): many connections, with limits that make floods harmless.

Rules: a connection that hasn't completed an exchange for a while is closed, the sooner the more
connections there are; single bytes don't count as progress. If there are too many, in total or of
one network, the one idle for longest is closed. A connection whose client doesn't read its answers
isn't read either, so each has at most a chunk of queries and a batch of answers in memory.
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

from ifdefault.ipc.fair_poll import IDLE, READ, WRITE, FairPoll

MOST, MOST_OF_A_NETWORK = 1000, 100
TURN_S = 0.001  # half of UDP's, so that a flood over TCP can't starve UDP
IDLE_S, SHORT_IDLE_S = 10.0, 2.0  # the latter while there are more than half of MOST
_SWEEP_S = 1.0
_ACCEPTS = 8  # before another socket is served
_CHUNK_BYTES = 4096  # read at once; longer queries are invalid
_BATCH_BYTES = 4096  # of answers, before they are sent
_PROGRESS_BYTES = 1 << 15  # of a zone transfer; counts as an exchange
_BUFFER_BYTES = 1 << 14  # of the kernel, each way, which would otherwise grow to megabytes
_PAUSE_S = 0.2  # after the host ran out of descriptors or memory
_BY_RST = struct.pack("=ii", 1, 0)  # SO_LINGER
StreamResponder = Callable[[bytes, str, str], tuple[bytes, ...]]  # query, client, uplink
UplinkOf = Callable[[socket.socket], str]  # the uplink that a connection came in on


class TcpServer:
    """All connections. `answer` returns () for an invalid query, which ends the connection."""

    def __init__(self, answer: StreamResponder) -> None:
        self.answer = answer
        self.poll = FairPoll(TURN_S)  # for listeners too
        # both sorted: the connection idle for longest comes first
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
        self.poll.close()

    def listen(self, listener: socket.socket, uplink_of: UplinkOf) -> None:
        """Serve the connections of a listener."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # connections inherit them
            listener.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self.poll.add(listener, partial(self._accept, listener, uplink_of))

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
                continue  # already disconnected
            try:
                sock.setblocking(False)
                uplink = uplink_of(sock)
            except OSError:
                sock.close()
                continue
            self._add(_TcpConnection(self, sock, peer[0], uplink))

    def _pause(self, listener: socket.socket) -> None:
        """The host is out of descriptors or memory: close some connections, and accept later."""
        for stream in list(islice(self._all, _ACCEPTS)):
            self.end(stream)
        self.poll.change(listener, IDLE)
        loop = asyncio.get_running_loop()
        loop.call_later(_PAUSE_S, partial(self._resume, listener))

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self.poll.change(listener, READ)

    def _add(self, stream: _TcpConnection) -> None:
        siblings = self._networks.setdefault(stream.network, {})
        if len(siblings) >= MOST_OF_A_NETWORK:
            self.end(next(iter(siblings)))
        elif len(self._all) >= MOST:
            self.end(next(iter(self._all)))
        siblings = self._networks.setdefault(stream.network, siblings)
        self._all[stream] = siblings[stream] = None
        self.poll.add(stream.sock, stream.serve)
        if self._timer is None:
            self._sweep()

    def touch(self, stream: _TcpConnection) -> None:
        """An exchange was completed."""
        stream.since_s = time.monotonic()
        for order in (self._all, self._networks[stream.network]):
            order[stream] = order.pop(stream)

    def finish(self, stream: _TcpConnection) -> None:
        """The client has closed its side, but may still be reading answers."""
        if not stream.unread:
            self.end(stream)
            return
        self.poll.remove(stream.sock)
        with suppress(OSError):
            stream.sock.shutdown(socket.SHUT_WR)

    def end_idle(self, idle_s: float) -> None:
        """Close the connections that have had nothing to do for so long."""
        early_s = time.monotonic() - idle_s
        for stream in [each for each in self._all if each.is_idle and each.since_s < early_s]:
            self.end(stream)

    def end(self, stream: _TcpConnection) -> None:
        del self._all[stream]
        siblings = self._networks[stream.network]
        del siblings[stream]
        if not siblings:
            del self._networks[stream.network]
        self.poll.remove(stream.sock)
        stream.close()

    def _sweep(self) -> None:
        """Close connections that are idle for too long, once a second while there are any."""
        most_s = SHORT_IDLE_S if len(self._all) > MOST // 2 else IDLE_S
        early_s = time.monotonic() - most_s
        while self._all and (stream := next(iter(self._all))).since_s < early_s:
            self.end(stream)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SWEEP_S, self._sweep) if self._all else None


class _TcpConnection:
    __slots__ = (
        *("_busy", "_queries", "_sent", "_server", "_to_send", "_uplink", "client"),
        *("network", "since_s", "sock"),
    )

    def __init__(self, server: TcpServer, sock: socket.socket, client: str, uplink: str) -> None:
        self._server, self.sock, self.client, self._uplink = server, sock, client, uplink
        self.network = _network(client)
        self.since_s = time.monotonic()
        self._queries, self._to_send = bytearray(), bytearray()
        self._sent = 0  # bytes since the last exchange
        self._busy = False

    def close(self) -> None:
        with suppress(OSError):
            if self.unread:  # or the kernel would keep retransmitting it
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BY_RST)
        self.sock.close()

    @property
    def unread(self) -> int:
        """Bytes that the client has not acknowledged."""
        waiting: int = struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))[0]
        return waiting + len(self._to_send)

    @property
    def is_idle(self) -> bool:
        return not self._queries and not self.unread

    def serve(self) -> None:
        """Send waiting answers, or answer queries that were read, or read."""
        if not self._to_send and not (self._size() or self._read()):
            return
        if not self._to_send and not self._answer():
            self._server.end(self)
            return
        if self._to_send and not self._send():
            return
        busy = bool(self._to_send or self._size())
        if busy != self._busy:
            self._busy = busy
            self._server.poll.change(self.sock, WRITE if busy else READ)

    def _size(self) -> int:
        """The size of the first query, with its length field; 0 while it is incomplete."""
        if len(self._queries) < 2:
            return 0
        size = 2 + int.from_bytes(self._queries[:2], "big")
        return size if len(self._queries) >= size else 0

    def _read(self) -> bool:
        """Whether data was read; also notices the end of the connection."""
        try:
            data = self.sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._server.end(self)
            return False
        self._queries += data
        if not data:
            self._server.finish(self)
        elif len(self._queries) > 2 * _CHUNK_BYTES:
            self._server.end(self)
            return False
        return bool(data)

    def _answer(self) -> bool:
        """Answer complete queries, in order, a batch at a time; False if one is invalid."""
        while (size := self._size()) and len(self._to_send) < _BATCH_BYTES:
            query = bytes(self._queries[2:size])
            del self._queries[:size]
            answers = self._server.answer(query, self.client, self._uplink)
            if not answers:
                return False
            for answer in answers:
                self._to_send += len(answer).to_bytes(2, "big") + answer
        return True

    def _send(self) -> bool:
        """Send what the kernel accepts; False if the connection has ended."""
        try:
            sent = self.sock.send(self._to_send, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return True
        except OSError:
            self._server.end(self)
            return False
        del self._to_send[:sent]
        self._sent += sent
        if not self._to_send or self._sent >= _PROGRESS_BYTES:
            self._sent = 0
            self._server.touch(self)
        return True


def _network(client: str) -> bytes:
    """A /24 or a /56: about what one customer of a provider has."""
    if ":" not in client:
        return socket.inet_pton(socket.AF_INET, client)[:3]
    return socket.inet_pton(socket.AF_INET6, client.partition("%")[0])[:7]

"""The sockets of the embedded DNS server: UDP here, TCP in `tcp`.

Rules: packets are not parsed here, that is the Answers' job. Answers that the kernel refuses are
dropped. Until there are Answers, queries wait in their sockets.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, Protocol

from ifdefault.frontend.server.mmsg import Batch
from ifdefault.frontend.server.tcp import TcpServer
from ifdefault.ipc import log
from ifdefault.ipc.fair_poll import FairPoll
from ifdefault.model.config import Family

TURN_S = 0.002
_PACKETS = 16  # of one socket, before another is served
_QUERY_BYTES = 2048  # longer packets are truncated, and thus rejected as malformed
_SO_MARK = 36  # asm-generic/socket.h
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)
UplinkMarks = Sequence[tuple[int, str]]


class Answers(Protocol):
    """Makes the answers. `now` is monotonic; a packet that isn't a query gets none."""

    def udp(self, query: bytes, client: str, uplink: str, now: float) -> bytes | None: ...
    def tcp(self, query: bytes, client: str, uplink: str, now: float) -> tuple[bytes, ...]: ...


class Queries:
    """Queries that were answered: how many, by the uplink that they came in on and the response
    code in the header (RFC 1035, 4.1.1)."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def by_code(self, uplink: str) -> list[int]:
        counts = self._counts.get(uplink)
        if counts is None:
            counts = self._counts[uplink] = [0] * 16
        return counts

    def take(self) -> tuple[tuple[str, int, int], ...]:
        """The uplink, the code and how many, since the last call."""
        counts, self._counts = self._counts, {}
        return tuple(
            (uplink, code, number)
            for uplink, by_code in sorted(counts.items())
            for code, number in enumerate(by_code)
            if number
        )


class UdpServer:
    """`unanswered` is called with UDP packets that weren't answered, and their senders."""

    def __init__(self, unanswered: Callable[[bytes, str], None]) -> None:
        self.queries = Queries()
        self._unanswered = unanswered
        self._answers: Answers | None = None
        self._batch = Batch(_PACKETS, _QUERY_BYTES)
        self._poll = FairPoll(TURN_S)
        self._tcp = TcpServer(self._answer_tcp)
        self._sockets: dict[int, tuple[socket.socket, UplinkMarks]] = {}

    def listen(
        self,
        number: int,
        transport: Literal["udp", "tcp"],
        sock: socket.socket,
        arrivals: UplinkMarks,
    ) -> None:
        """Answer on a socket, which is owned from now on. `arrivals`: as in messages.Listen."""
        self.unlisten(number)
        self._sockets[number] = sock, arrivals
        if self._answers is not None:
            self._start(sock, arrivals)

    def unlisten(self, number: int) -> None:
        if number in self._sockets:
            sock, _ = self._sockets.pop(number)
            if self._answers is not None:
                self._poll_of(sock).remove(sock)
            sock.close()

    def socket_of(self, number: int) -> socket.socket:
        return self._sockets[number][0]

    @property
    def connections(self) -> int:
        """The open ones, over TCP."""
        return len(self._tcp)

    def end_idle(self, idle_s: float) -> None:
        self._tcp.end_idle(idle_s)

    def answer(self, answers: Answers) -> None:
        """Use these Answers from now on."""
        first, self._answers = self._answers is None, answers
        for sock, arrivals in self._sockets.values() if first else ():
            self._start(sock, arrivals)

    def ways(self, family: Family) -> list[tuple[str, socket.socket]]:
        """The UDP sockets of a family, each with its uplink."""
        af = socket.AF_INET6 if family == 6 else socket.AF_INET
        return [
            (arrivals[0][1], sock)
            for sock, arrivals in self._sockets.values()
            if (sock.family, sock.type) == (af, socket.SOCK_DGRAM) and arrivals
        ]

    def _start(self, sock: socket.socket, arrivals: UplinkMarks) -> None:
        marks = dict(arrivals)
        first = next(iter(marks.values()), "")
        if sock.type == socket.SOCK_STREAM:
            self._tcp.listen(sock, partial(_uplink_by_mark, marks, first))
        elif len(marks) > 1:
            self._poll.add(sock, partial(self._drain_marked, sock, marks, first))
        else:
            self._poll.add(sock, partial(self._drain, sock, first))

    def _poll_of(self, sock: socket.socket) -> FairPoll:
        return self._tcp.poll if sock.type == socket.SOCK_STREAM else self._poll

    # --- UDP ------------------------------------------------------------------------------

    def _answering(self, uplink: str) -> Callable[[bytes, str], bytes | None]:
        """What answers the queries that are waiting now, and came in on this uplink."""
        assert self._answers is not None
        answer_udp, now = self._answers.udp, time.monotonic()
        counts = self.queries.by_code(uplink)

        def answer(query: bytes, client: str) -> bytes | None:
            try:
                response = answer_udp(query, client, uplink, now)
                if response is None:
                    self._unanswered(query, client)
                else:
                    counts[response[3] & 15] += 1
            except Exception as error:  # costs this query alone
                log.exception(error, "a query over UDP")
                return None
            return response

        return answer

    def _drain(self, sock: socket.socket, uplink: str) -> None:
        if self._answers is not None:
            self._batch.exchange(sock, self._answering(uplink))

    def _drain_marked(self, sock: socket.socket, marks: Mapping[int, str], first: str) -> None:
        if self._answers is None:
            return
        for _ in range(_PACKETS):
            try:
                query, ancillary, _, client = sock.recvmsg(_QUERY_BYTES, _ANCILLARY_BYTES)
            except OSError:
                return
            uplink = _arrival(marks, _mark(ancillary), first)
            if response := self._answering(uplink)(query, client[0]):
                with suppress(OSError):
                    sock.sendto(response, client)

    # --- TCP ------------------------------------------------------------------------------

    def _answer_tcp(self, query: bytes, client: str, uplink: str) -> tuple[bytes, ...]:
        if self._answers is None:
            return ()
        try:
            answers = self._answers.tcp(query, client, uplink, time.monotonic())
        except Exception as error:  # costs this connection alone
            log.exception(error, "a query over TCP")
            return ()
        if answers:
            self.queries.by_code(uplink)[answers[0][3] & 15] += 1
        return answers


def _mark(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_MARK):
            return int.from_bytes(data[:4], sys.byteorder)
    return 0


def _uplink_by_mark(marks: Mapping[int, str], first: str, sock: socket.socket) -> str:
    """The uplink that a TCP connection came in on (sysctl tcp_fwmark_accept)."""
    if len(marks) < 2:
        return first
    return _arrival(marks, sock.getsockopt(socket.SOL_SOCKET, _SO_MARK), first)


def _arrival(marks: Mapping[int, str], mark: int, first: str) -> str:
    """The uplink of an arrival mark. Bits that aren't ours are ignored."""
    if uplink := marks.get(mark):
        return uplink
    ours = 0
    for arrival_mark in marks:
        ours |= arrival_mark
    return marks.get(mark & ours, first)

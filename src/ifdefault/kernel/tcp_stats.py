"""Statistics of the host's own TCP connections by uplink address: progressing, stalled, half-open.

Rules: reads only. Peers on the host's own links and on loopback are filtered out by the kernel, as
they tell nothing about the path beyond. Of very many sockets only some are read, always the same
ones as long as they exist. Connections that ended since the last walk are progress, too, as both
ends took part: they are read where they are asked for, since there may be many.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ifdefault.kernel import sockdiag, socket_filter
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attributes, u32
from ifdefault.kernel.socket_filter import Prefixes
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG
from ifdefault.model.health import TcpStats

SOCKETS_MAX = 2000
WALK_S = 1.0
_FEW = 100  # up to so many known sockets are queried one by one
STALLED_MS = 200
MEMORY_S = 2.0  # progress since an older reading is ignored
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_STATES = (diag.TCP_ESTABLISHED, diag.TCP_SYN_RECV)
_RETRANS, _EXPIRES = 3, 52  # in struct inet_diag_msg
_TIME_WAIT_MS = 60_000  # net/tcp.h, TCP_TIMEWAIT_LEN
# offsets in struct tcp_info; _BYTES: bytes acked and received
_RETRANSMITS, _BACKOFF, _UNACKED, _LAST_ACK, _BYTES = 2, 4, 24, 56, slice(120, 136)
_SOCKETS, _PROGRESSED, _STALLED, _HALF_OPEN, _UNANSWERED, _ACK_MS, _SUBFLOWS = range(7)


class TcpMonitor:
    """Reads the statistics in the network namespace of the thread that creates it; the same thread
    must call `read`.

    The kernel's socket table is walked about once a second, which is the main cost; in between,
    while there are few sockets, only the known ones are queried. After each call `cost_s` is how
    long it took, and `complete` whether all sockets were read.
    """

    def __init__(self, on_link: Sequence[str] = (), sockets_max: int = SOCKETS_MAX) -> None:
        self.cost_s = 0.0
        self.complete = True
        self._max = sockets_max
        self._read_s = self._walked_s = float("-inf")
        self._moved: dict[bytes, bytes] = {}  # byte counters of each socket, by its cookie
        self._known: list[bytes] = []  # a request for each socket
        self._time_wait: dict[bytes, None] | None = None  # as read at the last walk
        self._netlink = Netlink(NETLINK_SOCK_DIAG)
        self.exclude(on_link)

    def __enter__(self) -> TcpMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def exclude(self, on_link: Sequence[str]) -> None:
        """From now on exclude peers in these prefixes, and on loopback."""
        self._excluded = Prefixes((*_LOOPBACK, *on_link))
        program = socket_filter.program((), self._excluded.destinations())
        self._query = sockdiag.query_both(_STATES, program, diag.INET_DIAG_INFO)
        self._ended_query = sockdiag.query_both((diag.TCP_TIME_WAIT,), program)
        self._walked_s = float("-inf")

    def read(self, now: float, *, ended: bool = False) -> dict[str, TcpStats]:
        """Current statistics by local address, with connections that have `ended`."""
        start_s = time.perf_counter()
        recent = now - self._read_s <= MEMORY_S
        moved = self._moved if recent else {}
        # an unknown socket was opened lately; that is progress, too, if since the last reading
        since_ms = (now - self._read_s) * 1000 if recent and self.complete else 0.0
        self._read_s, self._moved = now, {}
        if self.complete and now - self._walked_s < WALK_S and len(self._known) <= _FEW:
            messages = self._netlink.ask_many(diag.SOCK_DIAG_BY_FAMILY, self._known)
            stats = self._count(filter(None, messages), moved, since_ms)
        else:
            self._known, self.complete = [], True
            if not ended:
                self._time_wait = None
            tallies = self._ended(now) if ended else {}
            stats = self._count(self._walk(), moved, since_ms, tallies)
            self._walked_s = now
        self.cost_s = time.perf_counter() - start_s
        return stats

    @decodes
    def _ended(self, now: float) -> dict[bytes, list[int]]:
        """Tallies of the connections that ended since the last walk. One that was there is none of
        them, whatever its timer says: a FIN that the peer repeats restarts it."""
        since_ms = min(now - self._walked_s, MEMORY_S) * 1000
        before, self._time_wait = self._time_wait, {}
        tallies: dict[bytes, list[int]] = {}
        for message in self._some(self._ended_query):
            if self._excludes(message):
                continue
            which = message[sockdiag.ID]
            self._time_wait[which] = None
            ago_ms = _TIME_WAIT_MS - u32(message[_EXPIRES:])
            if before is not None and which not in before and ago_ms < since_ms:
                tally = tallies.setdefault(sockdiag.local_address(message), [0] * 7)
                _progress(tally, max(0, ago_ms))
        return tallies

    def _walk(self) -> Iterator[bytes]:
        listed = 0
        for listed, message in enumerate(self._some(self._query), 1):  # noqa: B007
            if not self._excludes(message):
                self._known.append(sockdiag.query_one(message, diag.INET_DIAG_INFO))
                yield message
        self.complete = listed < self._max

    def _excludes(self, message: bytes) -> bool:
        """Whether a socket is listed only because the kernel's filter hasn't all prefixes."""
        excluded = self._excluded
        return not excluded.few and sockdiag.remote_address(message) in excluded

    def _some(self, query: bytes) -> Iterator[bytes]:
        messages = self._netlink.stream(diag.TCPDIAG_GETSOCK, query)
        yield from islice(messages, self._max)
        if next(messages, None):
            self._netlink.close()  # discard the rest
            self._netlink = Netlink(NETLINK_SOCK_DIAG)

    @decodes
    def _count(
        self,
        messages: Iterable[bytes],
        moved: dict[bytes, bytes],
        since_ms: float,
        ended: dict[bytes, list[int]] | None = None,
    ) -> dict[str, TcpStats]:
        tallies = ended or {}
        for message in messages:
            state = message[1]
            if state not in _STATES:
                continue
            address = sockdiag.local_address(message)
            tally = tallies.get(address)
            if tally is None:
                tally = tallies[address] = [0] * 7
            if state == diag.TCP_SYN_RECV:
                tally[_HALF_OPEN] += 1
                tally[_UNANSWERED] += message[_RETRANS] > 0
                continue
            info = attributes(message, sockdiag.MESSAGE_BYTES).get(diag.INET_DIAG_INFO, b"")
            if len(info) < _BYTES.stop:
                continue
            cookie, now_moved = message[sockdiag.COOKIE], info[_BYTES]
            self._moved[cookie] = now_moved
            tally[_SOCKETS] += 1
            ack_ms = u32(info[_LAST_ACK:])
            if moved[cookie] != now_moved if cookie in moved else ack_ms < since_ms:
                _progress(tally, ack_ms)
            tally[_STALLED] += _stalled(info)
            tally[_SUBFLOWS] += sockdiag.mptcp_token(message) is not None
        return {sockdiag.text(address): TcpStats(*tally) for address, tally in tallies.items()}


def _progress(tally: list[int], ago_ms: int) -> None:
    least_ms = min(tally[_ACK_MS], ago_ms) if tally[_PROGRESSED] else ago_ms
    tally[_PROGRESSED], tally[_ACK_MS] = tally[_PROGRESSED] + 1, least_ms


def _stalled(info: bytes) -> bool:
    return (
        bool(info[_RETRANSMITS] or info[_BACKOFF])
        and u32(info[_UNACKED:]) > 0
        and u32(info[_LAST_ACK:]) >= STALLED_MS
    )

"""What the host's own TCP connections tell of its uplinks: they move on, hang, or never come about.

Rules: reads, and decides nothing. Peers on the host's own links and on loopback are left out, in
the kernel, as they tell nothing of what is beyond. Bounded: of very many sockets only some are
read, the same ones each time as long as they live.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ifdefault.kernel import sockdiag
from ifdefault.kernel.netlink import Netlink, attributes, u32
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG
from ifdefault.model.health import TcpStats

SOCKETS_MAX = 2000
WALK_S = 1.0
_FEW = 100
STALLED_MS = 200
MEMORY_S = 2.0  # progress since a look that is longer ago tells nothing of now
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_STATES = (diag.TCP_ESTABLISHED, diag.TCP_SYN_RECV)
_RETRANS = 3  # in struct inet_diag_msg
# in struct tcp_info; the last: bytes acked and received
_RETRANSMITS, _BACKOFF, _UNACKED, _LAST_ACK, _BYTES = 2, 4, 24, 56, slice(120, 136)
_SOCKETS, _PROGRESSED, _STALLED, _HALF_OPEN, _UNANSWERED = range(5)


class TcpMonitor:
    """In the network namespace of the thread that makes it, which must be the one that looks.

    The kernel's table of sockets is walked about once a second, which costs most; while sockets
    are few, looks in between ask for the known ones alone. After each look `cost_s` tells how long
    it took, `whole` whether all sockets were read.
    """

    def __init__(self, on_link: Sequence[str] = (), sockets_max: int = SOCKETS_MAX) -> None:
        self.cost_s = 0.0
        self.whole = True
        self._max = sockets_max
        self._looked_s = self._walked_s = float("-inf")
        self._moved: dict[bytes, bytes] = {}  # of each socket, by its cookie
        self._known: list[bytes] = []  # requests for each of them
        self._netlink = Netlink(NETLINK_SOCK_DIAG)
        self.leave_out(on_link)

    def __enter__(self) -> TcpMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def leave_out(self, on_link: Sequence[str]) -> None:
        """From now on leave out peers in these prefixes, and on loopback."""
        program = sockdiag.program((), [sockdiag.is_to(p) for p in (*_LOOPBACK, *on_link)])
        self._query = sockdiag.query_both(_STATES, program, diag.INET_DIAG_INFO)
        self._walked_s = float("-inf")

    def look(self, now: float) -> dict[str, TcpStats]:
        """What there is now, by local address."""
        start_s = time.perf_counter()
        recent = now - self._looked_s <= MEMORY_S
        moved = self._moved if recent else {}
        # a socket that we didn't know has come about lately: progress, too, if after the last look
        since_ms = (now - self._looked_s) * 1000 if recent and self.whole else 0.0
        self._looked_s, self._moved = now, {}
        if self.whole and now - self._walked_s < WALK_S and len(self._known) <= _FEW:
            messages = self._netlink.ask_many(diag.SOCK_DIAG_BY_FAMILY, self._known)
            found = self._count(filter(None, messages), moved, since_ms)
        else:
            self._walked_s, self._known, self.whole = now, [], True
            found = self._count(self._walk(), moved, since_ms)
        self.cost_s = time.perf_counter() - start_s
        return found

    def _walk(self) -> Iterator[bytes]:
        messages = self._netlink.stream(diag.TCPDIAG_GETSOCK, self._query)
        for message in islice(messages, self._max):
            self._known.append(sockdiag.one(message, diag.INET_DIAG_INFO))
            yield message
        if next(messages, None):
            self.whole = False
            self._netlink.close()  # the rest isn't wanted
            self._netlink = Netlink(NETLINK_SOCK_DIAG)

    def _count(
        self, messages: Iterable[bytes], moved: dict[bytes, bytes], since_ms: float
    ) -> dict[str, TcpStats]:
        tallies: dict[bytes, list[int]] = {}
        for message in messages:
            state = message[1]
            if state not in _STATES:
                continue
            address = sockdiag.local_address(message)
            tally = tallies.get(address)
            if tally is None:
                tally = tallies[address] = [0] * 5
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
            if cookie in moved:
                tally[_PROGRESSED] += moved[cookie] != now_moved
            else:
                tally[_PROGRESSED] += u32(info[_LAST_ACK:]) < since_ms
            tally[_STALLED] += _stalled(info)
        return {sockdiag.text(address): TcpStats(*tally) for address, tally in tallies.items()}


def _stalled(info: bytes) -> bool:
    return (
        bool(info[_RETRANSMITS] or info[_BACKOFF])
        and u32(info[_UNACKED:]) > 0
        and u32(info[_LAST_ACK:]) >= STALLED_MS
    )

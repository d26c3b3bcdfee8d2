"""What the host's own TCP connections tell of its uplinks: they move on, hang, or never come about.

Rules: reads, and decides nothing. Peers on the host's own links and on loopback are left out, in
the kernel, as they tell nothing of what is beyond. Bounded: of very many sockets only some are
read, the same ones each time as long as they live.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ifdefault.kernel import sockdiag
from ifdefault.kernel.netlink import NETLINK_SOCK_DIAG, Netlink, attributes, u32


@dataclass(frozen=True, order=True, slots=True)
class Sign:
    """The sockets of one local address. Outsiders can forge half-open ones, nothing else."""

    sockets: int = 0  # established
    progressed: int = 0  # of them: something was acknowledged or came in since the last look
    stalled: int = 0  # of them: retransmitting, and no ACK for a while
    half_open: int = 0  # SYN_RECV: they asked us, and haven't answered our SYN-ACK yet
    half_open_unanswered: int = 0  # of them: the SYN-ACK was sent again


SOCKETS_MAX = 2000  # of a family
STALLED_MS = 200
MEMORY_S = 2.0  # progress since a look that is longer ago tells nothing of now
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_STATES = (sockdiag.ESTABLISHED, sockdiag.SYN_RECEIVED)
# struct tcp_info: retransmits and backoff, unacked, last_ack_recv; bytes acked and received
_RETRANSMITS, _BACKOFF, _UNACKED, _LAST_ACK, _BYTES = 2, 4, 24, 56, slice(120, 136)
_SOCKETS, _PROGRESSED, _STALLED, _HALF_OPEN, _UNANSWERED = range(5)


class Signs:
    """In the network namespace of the thread that makes it, which must be the one that looks.

    After each look `cost_s` tells how long it took, `whole` whether all sockets were read.
    """

    def __init__(self, on_link: Sequence[str] = (), sockets_max: int = SOCKETS_MAX) -> None:
        self.cost_s = 0.0
        self.whole = True
        self._max = sockets_max
        self._seen: dict[bytes, bytes] = {}
        self._looked_s = float("-inf")
        self._texts: dict[bytes, str] = {}
        self._netlink = Netlink(NETLINK_SOCK_DIAG)
        self.leave_out(on_link)

    def __enter__(self) -> Signs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def leave_out(self, on_link: Sequence[str]) -> None:
        """From now on leave out peers in these prefixes, and on loopback."""
        program = sockdiag.program((), [sockdiag.is_to(p) for p in (*_LOOPBACK, *on_link)])
        self._queries = [
            sockdiag.query(af, _STATES, program, sockdiag.TCP_INFO) for af in sockdiag.AFS
        ]

    def look(self, now: float) -> dict[str, Sign]:
        """What there is now, by local address."""
        start_s = time.perf_counter()
        recent = now - self._looked_s <= MEMORY_S
        # a socket that we didn't know has come about since, which is progress, too
        newcomer = b"" if recent and self.whole else None
        known = self._seen if recent else {}
        self._looked_s, self._seen, self.whole = now, {}, True
        tallies: dict[bytes, list[int]] = {}
        for query in self._queries:
            self._read(query, known, newcomer, tallies)
        found = {self._text(address): Sign(*tally) for address, tally in tallies.items()}
        self.cost_s = time.perf_counter() - start_s
        return found

    def _read(
        self,
        query: bytes,
        known: dict[bytes, bytes],
        newcomer: bytes | None,
        tallies: dict[bytes, list[int]],
    ) -> None:
        left = self._max
        for message in self._netlink.stream(sockdiag.BY_FAMILY, query):
            if not left:
                self.whole = False
                self._netlink.close()  # who breaks off asks anew by another socket
                self._netlink = Netlink(NETLINK_SOCK_DIAG)
                return
            left -= 1
            address = sockdiag.local_address(message)
            tally = tallies.get(address)
            if tally is None:
                tally = tallies[address] = [0] * 5
            if message[1] == sockdiag.SYN_RECEIVED:
                tally[_HALF_OPEN] += 1
                tally[_UNANSWERED] += message[3] > 0  # idiag_retrans
                continue
            info = attributes(message, sockdiag.MESSAGE_BYTES).get(sockdiag.TCP_INFO, b"")
            if len(info) < _BYTES.stop:
                continue
            cookie, moved = message[sockdiag.COOKIE], info[_BYTES]
            self._seen[cookie] = moved
            tally[_SOCKETS] += 1
            tally[_PROGRESSED] += known.get(cookie, newcomer) not in (moved, None)
            tally[_STALLED] += _stalled(info)

    def _text(self, address: bytes) -> str:
        text = self._texts.get(address)
        if text is None:
            if len(self._texts) > self._max:
                self._texts.clear()
            text = self._texts[address] = sockdiag.text(address)
        return text


def _stalled(info: bytes) -> bool:
    return (
        bool(info[_RETRANSMITS] or info[_BACKOFF])
        and u32(info[_UNACKED:]) > 0
        and u32(info[_LAST_ACK:]) >= STALLED_MS
    )

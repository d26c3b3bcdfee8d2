"""`python -m tests.net.slow_clients COUNT SOURCE…`: TCP clients of a DNS server that hold it up.

Rules: half of them send a byte of a query at a time, half ask a lot and never read. Each line of
standard input is one more turn, and answered with a line; its end is answered when the server has
ended all of them. A process of its own has descriptors of its own.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from ifdefault.lab.waiting import eventually
from tests.net.dns_cases import ZONE, A
from tests.net.dns_tcp import connect, ended, query


def main(count: int, sources: Sequence[str]) -> None:
    socks = [connect(source, A) for _ in range(count) for source in sources]
    print("connected", flush=True)
    for turn, _ in enumerate(sys.stdin):
        for number, sock in enumerate(socks):
            _harass(sock, reads=number % 2 == 0, byte=query()[turn])
        print("done", flush=True)
    eventually(lambda: all(map(ended, socks)))
    print("ended", flush=True)


def _harass(sock: socket.socket, *, reads: bool, byte: int) -> None:
    sock.setblocking(False)
    with suppress(OSError):  # ended already, or its buffers are full
        if reads:
            sock.send(bytes([byte]))
        else:
            sock.send(query(f"long.{ZONE}", "TXT") * 200)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

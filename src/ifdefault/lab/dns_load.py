"""Steady DNS queries from a node, and how long the answers take: what a restart costs its visitors.

Rules: queries are sent at a fixed rate, however long answers take; each has a socket of its own, so
that a closed port is noticed at once. It is never asked again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

from ifdefault.dns import client
from ifdefault.dns.wire import NOERROR
from ifdefault.lab.node import Node
from ifdefault.model.address import family_of

_PATIENCE_S = 5.0
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(slots=True)
class Outcome:
    """Queries over one transport. `waits_s`: until the answer, of those that got one; `failed`: of
    the others, when they were sent (monotonic) and why they failed."""

    waits_s: list[float] = field(default_factory=list)
    failed: list[tuple[float, str]] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return len(self.waits_s) + len(self.failed)

    def late(self, limit_s: float) -> int:
        """Queries without an answer after so long."""
        return sum(wait > limit_s for wait in self.waits_s) + len(self.failed)


class DnsLoad:
    """Asks for the A records of a name at some addresses in turn, by UDP and TCP, from `start` to
    `stop`."""

    def __init__(
        self,
        node: Node,
        addresses: Sequence[str],
        name: str,
        *,
        rate: float,
        tcp_share: int = 4,
        port: int = 53,
    ) -> None:
        """`rate`: queries per second; one in `tcp_share` is over TCP."""
        self.udp, self.tcp = Outcome(), Outcome()
        self._node, self._addresses = node, addresses
        self._name, self._port = name, port
        self._rate, self._tcp_share = rate, tcp_share
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: node.python(self._run))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when all queries are answered or have failed."""
        self._stop.set()
        self._thread.join()

    @property
    def outcomes(self) -> tuple[Outcome, Outcome]:
        return self.udp, self.tcp

    def _run(self) -> None:
        asyncio.run(self._ask_all())

    async def _ask_all(self) -> None:
        loop = asyncio.get_running_loop()
        start_s, tasks = loop.time(), set[asyncio.Task[None]]()
        for number, address in enumerate(cycle(self._addresses)):
            if self._stop.is_set():
                break
            await asyncio.sleep(start_s + number / self._rate - loop.time())
            over_tcp = number // len(self._addresses) % self._tcp_share == 0
            task = asyncio.create_task(self._ask(address, number, over_tcp=over_tcp))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _ask(self, address: str, number: int, *, over_tcp: bool) -> None:
        outcome = self.tcp if over_tcp else self.udp
        kind = socket.SOCK_STREAM if over_tcp else socket.SOCK_DGRAM
        query = client.query(number & 0xFFFF, self._name, "A", recurse=True, edns=False)
        packet = struct.pack("!H", len(query)) + query if over_tcp else query
        loop, start_s = asyncio.get_running_loop(), time.monotonic()
        with socket.socket(_AF[family_of(address)], kind | socket.SOCK_NONBLOCK) as sock:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await loop.sock_connect(sock, (address, self._port))
                    await loop.sock_sendall(sock, packet)
                    answer = await loop.sock_recv(sock, 4096)
            except (OSError, TimeoutError) as error:
                outcome.failed.append((start_s, getattr(error, "strerror", "") or "no answer"))
                return
        code = client.read_code(answer[2 * over_tcp :], query)
        if code == NOERROR:
            outcome.waits_s.append(time.monotonic() - start_s)
        else:
            outcome.failed.append((start_s, f"wrong answer {answer[:16].hex() or '(end)'}"))

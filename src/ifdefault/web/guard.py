"""Limits what clients take: connections, and time to send a request and to read its answer.

Rules: nobody is waited for. A connection too many, a request that is too slow, and an answer that
nobody reads end that connection alone, and are logged once (`Refusals`). Clients at loopback and at
a unix socket count as one: they are proxies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from ifdefault.ipc import log

MOST, MOST_OF_AN_ADDRESS = 1200, 64
MOST_STREAMS = 1000  # of events; what is left is for requests
REQUEST_S = 10.0  # to send a request, also the next one
READ_S = 10.0  # to read what fills the buffers

_logger = logging.getLogger("ifdefault")


class Refusals:
    """Logs what was refused: once, and then how often more."""

    def __init__(self) -> None:
        self._repeats: log.Repeats[str] = log.Repeats(often=1)

    def add(self, what: str, who: str | None) -> None:
        """`what`: a text of ours; what a client sent isn't part of it. `who`: an address, "" for a
        unix socket, None if that isn't known."""
        now = time.monotonic()
        for refused, more in self._repeats.over(now):
            _logger.warning("refused %s", log.repeated(refused, more))
        if self._repeats.passes(what, now):
            whose = "" if who is None else f" (of {who or 'a unix socket'})"
            _logger.warning("refused %s%s", what, whose)


class Guard:
    """Counts connections, and knows them by their transports."""

    def __init__(self, refusals: Refusals) -> None:
        self.refusals = refusals
        self.connections: dict[Any, Guarded] = {}
        self._of_address: Counter[str] = Counter()

    def admit(self, guarded: Guarded, transport: Any) -> bool:
        address = guarded.address = _address(transport)
        alone = address and not ip_address(address).is_loopback
        if len(self.connections) >= MOST or (
            alone and self._of_address[address] >= MOST_OF_AN_ADDRESS
        ):
            self.refusals.add("a connection: too many", address)
            return False
        self.connections[transport] = guarded
        self._of_address[address] += 1
        return True

    def remove(self, guarded: Guarded, transport: Any) -> None:
        if self.connections.pop(transport, None):
            self._of_address[guarded.address] -= 1
            if not self._of_address[guarded.address]:
                del self._of_address[guarded.address]

    def begun(self, transport: Any) -> None:
        """Its request has arrived."""
        if guarded := self.connections.get(transport):
            guarded.wait_for_nothing()

    def done(self, transport: Any) -> None:
        """Its answer is complete: it has to send the next request."""
        if guarded := self.connections.get(transport):
            guarded.wait_for_request()


class Guarded(asyncio.Protocol):
    """Passes everything on to the protocol that serves a connection, unless it takes too long."""

    __slots__ = ("_guard", "_inner", "_partial", "_reading", "_requesting", "_transport", "address")

    def __init__(self, guard: Guard, inner: asyncio.Protocol) -> None:
        self._guard, self._inner = guard, inner
        self._transport: Any = None
        self._requesting: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._partial = False  # a part of a request has arrived
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if not self._guard.admit(self, transport):
            self._transport.abort()
            return
        self.wait_for_request()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.wait_for_nothing()
        self._stop_reading()
        if self._transport in self._guard.connections:
            self._guard.remove(self, self._transport)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._partial = self._requesting is not None
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._reading = self._end_in(READ_S, "an answer's reader: too slow")
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._stop_reading()
        self._inner.resume_writing()

    def wait_for_request(self) -> None:
        self.wait_for_nothing()
        self._partial = False
        self._requesting = self._end_in(REQUEST_S, "a request: too slow")

    def wait_for_nothing(self) -> None:
        if self._requesting:
            self._requesting.cancel()
            self._requesting = None

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    def _end_in(self, seconds: float, why: str) -> asyncio.TimerHandle:
        def end() -> None:
            if self._reading or self._partial:  # else it is only idle
                self._guard.refusals.add(why, self.address)
            self._transport.abort()

        return asyncio.get_running_loop().call_later(seconds, end)


def _address(transport: Any) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else ""


def factory(guard: Guard, server: Callable[[], asyncio.Protocol]) -> Callable[[], Guarded]:
    """What makes a protocol for each connection."""
    return lambda: Guarded(guard, server())

"""The sockets of the embedded DNS server: one for each uplink address and transport.

Rules: they are opened here and passed to the DNS server, as fast as it takes them, so that however
many there are, none waits in memory and the engine never pauses. A duplicate stays here, for the
server's successor. A socket that can't be opened, since the address isn't there yet or the port is
in use, is retried; the error names the process that uses the port. Where a process may not have as
many sockets as there are addresses, those that are name servers come first.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.dns_connection import MOST_SOCKETS, Held
from ifdefault.daemon.process.dns_server import DnsServerProcess
from ifdefault.ipc.messages import Listen, Transport, Unlisten
from ifdefault.kernel import open_dns_sockets
from ifdefault.model.errors import Problem, reason
from ifdefault.model.kernel import Uplink

_RETRY_S = 2.0  # for a port in use, or an address that isn't there yet
_RESERVED = 256  # descriptors of the engine for everything else
_TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
Listener = tuple[Transport, str]  # transport, address
Arrivals = tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class _Answered:
    """A socket that the server answers on."""

    number: int  # identifies the socket in messages
    arrivals: Arrivals


@dataclass(slots=True)
class _Fault:
    """`what`: without the address, so that it is the same for many."""

    since_s: float
    what: str
    retry_s: float = field(default=0.0)


class Listeners:
    def __init__(self, process: DnsServerProcess, event_log: EventLog) -> None:
        self._process, self._event_log = process, event_log
        process.drained = self._open
        self._numbers = count(1)
        self._port = 0
        self._desired: dict[Listener, Arrivals] = {}
        self._surplus, self._surplus_s = "", 0.0
        self._sockets: dict[Listener, socket.socket] = {}
        self._answered: dict[Listener, _Answered] = {}
        self._missing: deque[Listener] = deque()  # not answered on yet
        self._refused: dict[Listener, OSError] = {}  # of those that were tried since
        self._faults: dict[Listener, _Fault] = {}
        self._running = False  # a DNS server
        self._retry: asyncio.TimerHandle | None = None

    def update(self, uplinks: Sequence[Uplink], port: int) -> bool:
        """Answer on these uplinks' addresses from now on; whether there are any."""
        listeners = list(_listeners(uplinks))
        room = _room()
        surplus = "" if len(listeners) <= room else _too_many(len(listeners), room)
        if surplus != self._surplus:
            self._surplus, self._surplus_s = surplus, time.monotonic()
            if surplus:
                self._event_log.note("dns", surplus, severity="error")
        self._desired = dict(listeners[:room])
        if port != self._port:
            self._port = port
            self._close_other_ports()
        return bool(self._desired)

    def server_started(self, held: Held, spare: Held) -> None:
        """Take over the sockets that it answers on, and those of its predecessors."""
        self._running = True
        self._answered = {
            (listen.transport, listen.address): _Answered(listen.number, listen.arrivals)
            for listen, _ in held
        }
        self._numbers = count(1 + max((listen.number for listen, _ in held), default=0))
        for listen, sock in (*held, *spare):
            if before := self._sockets.pop((listen.transport, listen.address), None):
                before.close()
            self._sockets[listen.transport, listen.address] = sock
        self._close_other_ports()

    def server_ended(self) -> None:
        self._running = False
        self._answered.clear()
        self._missing.clear()

    def close(self) -> None:
        """The server goes on without us."""
        if self._retry is not None:
            self._retry.cancel()
        for sock in self._sockets.values():
            sock.close()

    @property
    def answered(self) -> int:
        """How many sockets the server answers on."""
        return len(self._answered)

    def faults(self) -> Iterator[tuple[str, float, str]]:
        """Where something is wrong, since when, and what."""
        if self._surplus:
            yield "addresses", self._surplus_s, self._surplus
        for listeners, fault in self._alike(self._faults):
            transport, address = listeners[0]
            more = f" and {len(listeners) - 1} more" if len(listeners) > 1 else ""
            yield f"{address}{more} {transport}", fault.since_s, self._text(listeners, fault)

    # --- open and close -------------------------------------------------------------------

    def listen(self) -> None:
        """Open the sockets that are missing, have the server answer on all, and close those that
        aren't needed any more."""
        now = time.monotonic()
        for listener in [each for each in self._sockets if each not in self._desired]:
            self._close(listener)
        self._faults = {p: fault for p, fault in self._faults.items() if p in self._desired}
        self._refused.clear()
        self._missing = deque(
            listener
            for listener, arrivals in (self._desired.items() if self._running else ())
            if not self._is_answered(listener, arrivals)
            and not (listener in self._faults and now < self._faults[listener].retry_s)
        )
        self._open()

    def _open(self) -> None:
        """Go on with those that are missing, until the server has to read."""
        if not self._running:
            return
        while self._missing:
            if self._process.waits:
                return
            listener = self._missing.popleft()
            try:
                self._answer(listener, self._desired[listener])
            except OSError as error:
                self._refused[listener] = error
            else:
                self._faults.pop(listener, None)
        self._note_refused()
        now = time.monotonic()
        if self._faults and (self._retry is None or self._retry.when() <= now):
            loop = asyncio.get_running_loop()
            self._retry = loop.call_at(now + _RETRY_S, self.listen)
        self._process.handed_over()

    def _is_answered(self, listener: Listener, arrivals: Arrivals) -> bool:
        answered = self._answered.get(listener)
        return answered is not None and answered.arrivals == arrivals

    def _answer(self, listener: Listener, arrivals: Arrivals) -> None:
        """Have the server answer on a socket."""
        transport, address = listener
        if answered := self._answered.pop(listener, None):
            self._process.post(Unlisten(answered.number), ())
        if listener not in self._sockets:
            udp = transport == "udp"
            opened = open_dns_sockets.udp_listener if udp else open_dns_sockets.tcp_listener
            self._sockets[listener] = opened(address, self._port)
        sock, number = self._sockets[listener], next(self._numbers)
        if transport == "udp" and len(arrivals) > 1:
            open_dns_sockets.receive_marks(sock)
        self._process.post(Listen(number, transport, address, arrivals), (sock.fileno(),))
        self._answered[listener] = _Answered(number, arrivals)

    def _close_other_ports(self) -> None:
        for listener, sock in list(self._sockets.items()):
            if sock.getsockname()[1] != self._port:
                self._close(listener)

    def _close(self, listener: Listener) -> None:
        if answered := self._answered.pop(listener, None):
            self._process.post(Unlisten(answered.number), ())
        self._sockets.pop(listener).close()

    # --- faults ---------------------------------------------------------------------------

    def _note_refused(self) -> None:
        """Remember the faults, and log those that are new, one line for all that are alike."""
        now = time.monotonic()
        users = self._users()
        news: dict[Listener, _Fault] = {}
        for listener, error in self._refused.items():
            what = reason(error)
            if error.errno == errno.EADDRINUSE:
                what = f"in use by {users.get(listener) or 'another process'}"
            fault = self._faults.get(listener)
            if fault is None or (fault.what != what and listener in users):
                news[listener] = fault = self._faults[listener] = _Fault(now, what)
            fault.retry_s = now + _RETRY_S
        self._refused.clear()
        for listeners, fault in self._alike(news):
            self._event_log.note("dns", self._text(listeners, fault), severity="warning")

    def _users(self) -> dict[Listener, str]:
        """The process that uses the port, for each that is newly refused: looking it up is slow."""
        users: dict[Listener, str] = {}
        for transport in _TRANSPORTS:
            addresses = [
                address
                for (kind, address), error in self._refused.items()
                if kind == transport and error.errno == errno.EADDRINUSE
                if (fault := self._faults.get((kind, address))) is None
                or not fault.what.startswith("in use by")
            ]
            found = open_dns_sockets.holders(transport, addresses, self._port)
            users |= {(transport, address): found.get(address, "") for address in addresses}
        return users

    def _text(self, listeners: Sequence[Listener], fault: _Fault) -> str:
        transport, address = listeners[0]
        more = f" and {len(listeners) - 1} more" if len(listeners) > 1 else ""
        where = f"port {self._port} of {address}{more} ({transport})"
        if fault.what.startswith("in use by"):
            remedy = "stop it, have it listen elsewhere, or set dns.server.port and redirect to it"
            return f"{where} is {fault.what}: {remedy}"
        return f"{where}: {fault.what}"

    @staticmethod
    def _alike(faults: dict[Listener, _Fault]) -> list[tuple[list[Listener], _Fault]]:
        """Faults of the same kind, each with the sockets that have it."""
        alike: dict[tuple[Transport, str], list[Listener]] = {}
        for listener, fault in faults.items():
            alike.setdefault((listener[0], fault.what), []).append(listener)
        return [(listeners, faults[listeners[0]]) for listeners in alike.values()]


def _room() -> int:
    """How many sockets this process and the DNS server can have."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, min(MOST_SOCKETS, allowed - _RESERVED))


def _too_many(sockets: int, room: int) -> str:
    what = (
        f"the uplinks' addresses need {sockets} sockets, but at most {room} can be open; the last"
        " ones aren't answered on"
    )
    remedy = "" if room == MOST_SOCKETS else "raise the limit of open files (LimitNOFILE=)"
    return str(Problem("dns.server", what, remedy or "set uplink.NAME.addresses"))


def _listeners(uplinks: Sequence[Uplink]) -> Iterator[tuple[Listener, Arrivals]]:
    """The sockets to open, those of name servers first, each with the uplinks that have its address
    and, if there are several, the arrival marks that distinguish them."""
    owners: dict[str, list[Uplink]] = {
        source: [] for uplink in uplinks for _, source in uplink.sources
    }
    for uplink in uplinks:
        for address in uplink.addresses:
            temporary = address.family == 6 and address.secondary
            if not address.tentative and not temporary:
                owners.setdefault(address.address, []).append(uplink)
    for text, sharing in owners.items():
        shared = len(sharing) > 1
        arrivals = tuple((u.arrival_mark if shared else 0, u.name) for u in sharing)
        for transport in _TRANSPORTS if sharing else ():
            yield (transport, text), arrivals

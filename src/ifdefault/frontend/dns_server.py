"""The DNS server: connects the engine's messages with sockets, zones and secondaries.

    Listen, Unlisten ──> server.udp, server.tcp ──> sockets <── server.notify
    ZoneHead, ZoneName …, ZoneEnd ──> dns.table ──> dns.answer, dns.secondaries

Rules: all zones are replaced at once. A secondary gets no zone while its key can't be read.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from ifdefault.dns.answer import Responder
from ifdefault.dns.limiter import Limiter
from ifdefault.dns.secondaries import SecondaryAccess
from ifdefault.dns.table import Table
from ifdefault.dns.tsig_key import BadKey, LoadedKey
from ifdefault.frontend.client import tsig_key_file
from ifdefault.frontend.server.notify import NotifySender, Secondary
from ifdefault.frontend.server.udp import UdpServer
from ifdefault.ipc.messages import Listen, Served, Unlisten, ZoneEnd, ZoneHead, ZoneName, printable
from ifdefault.model.dns import AddressRecord, Published, Record, Zone

_SERVED_S = 1.0
_READ_AGAIN_S = 10.0  # for keys that can't be read
_MOST_EVENTS, _MOST_WAITING = 16, 256  # per Served; until the next one

ServerMessage: TypeAlias = Listen | Unlisten | ZoneHead | ZoneName | ZoneEnd


class DnsServer:
    """Runs on the current loop. `report` is called with a Served each second in which there was
    anything to report."""

    def __init__(self, report: Callable[[Served], None]) -> None:
        self._report = report
        self._server = UdpServer(lambda packet, client: self._notifier.receive(packet, client))
        self._listening: dict[int, Listen] = {}
        self._notifier = NotifySender(self._server.ways, self._add_event)
        self._responder: Responder | None = None
        self._pending: list[Zone] = []  # zones received since the last ZoneEnd
        self._serials: dict[str, int] = {}
        self._end = ZoneEnd((), 0, ())
        self._secondaries: tuple[Secondary, ...] = ()
        self._faults: dict[str, str] = {}  # by the file of a key
        self._read_again_s = 0.0
        self._events: list[str] = []
        self._unanswered = 0  # sockets that could not be received
        self._tick()

    def receive(self, message: ServerMessage, sock: socket.socket | None) -> None:
        match message:
            case Listen(number, transport, _, arrivals):
                if sock is not None:
                    self._listening[number] = message
                    self._server.listen(number, transport, sock, arrivals)
                else:  # this process has too many files open
                    self._unanswered += 1
            case Unlisten(number):
                self._listening.pop(number, None)
                self._server.unlisten(number)
            case ZoneHead(zone, serial, contact, nameservers):
                self._pending.append(Zone(zone, serial, contact, nameservers, ()))
            case ZoneName():
                if self._pending:
                    last = self._pending.pop()
                    names = (*last.names, _published(message))
                    self._pending.append(replace(last, names=names))
            case ZoneEnd():
                zones, self._pending = self._pending, []
                self._serve(zones, message)

    def listening(self) -> list[tuple[Listen, socket.socket]]:
        """The sockets that it answers on."""
        return [(listen, self._server.socket_of(n)) for n, listen in self._listening.items()]

    def forget_pending(self) -> None:
        """The engine that sent those zones ended before it had sent all."""
        self._pending.clear()

    def stop_listening(self) -> None:
        """Take no more queries. Connections over TCP go on."""
        for number in self._listening:
            self._server.unlisten(number)
        self._listening.clear()

    def end_idle(self, idle_s: float) -> None:
        self._server.end_idle(idle_s)

    @property
    def is_idle(self) -> bool:
        return not self._server.connections

    # --- zones ----------------------------------------------------------------------------

    def _serve(self, zones: Sequence[Zone], end: ZoneEnd) -> None:
        """Serve these zones from now on, and notify the secondaries of those that changed."""
        table = Table.build(zones)
        settings, before = ((each.rate_limit, each.cookie_secrets) for each in (end, self._end))
        if self._responder is None or settings != before:
            limiter = Limiter(end.rate_limit) if end.rate_limit else None
            secrets = [bytes.fromhex(secret) for secret in end.cookie_secrets]
            self._responder = Responder(table, secrets=secrets, limiter=limiter)
            self._set_clock()
        else:
            self._responder.table = table
        self._end = end
        self._admit()
        changed = [zone for zone in zones if self._serials.get(zone.zone) != zone.serial]
        self._serials = {zone.zone: zone.serial for zone in zones}
        self._notify(changed)

    def _notify(self, zones: Sequence[Zone]) -> None:
        for zone in zones:
            named = Counter(record.uplink for name in zone.names for record in name.addresses)
            uplinks = [uplink for uplink, _ in named.most_common()]  # working uplinks first
            for secondary in self._secondaries:
                self._notifier.notify(secondary, zone.zone, zone.serial, uplinks)

    # --- secondaries ----------------------------------------------------------------------

    def _admit(self) -> None:
        """Read the keys, and accept the secondaries whose keys are valid."""
        if self._responder is None:
            return
        faults, known = self._faults, dict[str, LoadedKey]()
        self._faults = {}
        for path in {path for _, _, path in self._end.secondaries if path}:
            try:
                known[path] = tsig_key_file.read(path)
            except BadKey as error:
                self._faults[path] = str(error)
                if faults.get(path) != str(error):
                    self._add_event(f"secondaries with this key get no zone: {error}")
        self._read_again_s = time.monotonic() + _READ_AGAIN_S
        admitted: dict[str, list[LoadedKey | None]] = {}
        secondaries = []
        for address, port, path in self._end.secondaries:
            keys = admitted.setdefault(address, [])
            if path not in self._faults:
                key = known.get(path)
                keys.append(key)
                secondaries.append(Secondary(address, port, key))
        self._secondaries = tuple(secondaries)
        guarded = (
            SecondaryAccess(self._responder, admitted, self._add_event)
            if admitted
            else self._responder
        )
        self._server.answer(guarded)

    # --- reports --------------------------------------------------------------------------

    def _add_event(self, event: str) -> None:
        if len(self._events) < _MOST_WAITING:
            self._events.append(printable(event))

    def _tick(self) -> None:
        """Called once a second."""
        asyncio.get_running_loop().call_later(_SERVED_S, self._tick)
        self._set_clock()
        if self._faults and time.monotonic() > self._read_again_s:
            self._admit()
        if self._unanswered:
            what = "can't be answered on: the DNS server has too many files open"
            self._add_event(f"{self._unanswered} sockets {what}; raise LimitNOFILE= of its unit")
            self._unanswered = 0
        served = self._server.queries.take()
        if served or self._events:
            events, self._events = self._events[:_MOST_EVENTS], self._events[_MOST_EVENTS:]
            self._report(Served(served, tuple(events)))

    def _set_clock(self) -> None:
        """Cookies and signatures need Unix time; everything else uses the monotonic clock."""
        if self._responder is not None:
            self._responder.epoch_offset_s = time.time() - time.monotonic()


def _published(message: ZoneName) -> Published:
    return Published(
        message.name,
        message.policy,
        message.ttl,
        tuple(AddressRecord(*fields) for fields in message.addresses),
        tuple(Record(kind, bytes.fromhex(rdata), "") for kind, rdata in message.records),
    )

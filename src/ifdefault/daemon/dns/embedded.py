"""The engine's part of the embedded DNS server: sockets, zones and their serials.

Rules: one socket for each uplink address and transport, opened here and passed to the DNS server,
a process that outlives the engine (`process.dns_server`). A duplicate stays here, for the server's
successor. Until this engine publishes, the server answers by the zones of the engine before. A
serial is on disk before it is published. A socket that can't be opened, since the address isn't
there yet or the port is in use, is retried; the error names the process that uses the port.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from typing import Annotated

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.cookie_secrets import CookieSecrets
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.dns_connection import Held
from ifdefault.daemon.process.dns_server import DnsServerProcess
from ifdefault.daemon.status import PublisherStatus
from ifdefault.dns.delegation import zone_glue
from ifdefault.dns.publish import next_serial, serve
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.ipc import fields
from ifdefault.ipc.messages import Listen, Transport, Unlisten, ZoneEnd, ZoneHead, ZoneName
from ifdefault.kernel import open_dns_sockets
from ifdefault.model.dns import ServerConfig, Zone
from ifdefault.model.errors import reason
from ifdefault.model.kernel import Uplink


@dataclass(frozen=True, slots=True)
class _Serial:
    """`digest`: of the zone that was published with it; `glue`: what its parent should have."""

    serial: Annotated[int, fields.number(0, (1 << 32) - 1)]
    digest: str
    glue: dict[str, str] = field(default_factory=dict)


SERIALS: StateFile[dict[str, _Serial]] = StateFile(
    "serials.json", dict[str, _Serial], "the next serials are taken from the time"
)
_RETRY_S = 2.0  # for a port in use, or an address that isn't there yet
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
    since_s: float
    text: str
    retry_s: float = field(default=0.0)


class Nameserver:
    def __init__(self, store: Store, process: DnsServerProcess, event_log: EventLog) -> None:
        self._store, self._process, self._event_log = store, process, event_log
        process.started, process.ended = self._server_started, self._server_ended
        self._cookies = CookieSecrets(store)
        self._numbers = count(1)
        self._server = ServerConfig()
        self._zones: tuple[Zone, ...] = ()  # as published last
        self._since_s = 0.0
        self._desired: dict[Listener, Arrivals] = {}
        self._sockets: dict[Listener, socket.socket] = {}
        self._answered: dict[Listener, _Answered] = {}
        self._faults: dict[Listener, _Fault] = {}
        self._running = False  # a DNS server
        self._retry: asyncio.TimerHandle | None = None
        self._roll: asyncio.TimerHandle | None = None  # when other cookie secrets are due

    def publish(self, now: float, publish: Publish) -> None:
        config = publish.config
        server = config.dns.server
        zones = serve(config.dns, publish.published, publish.candidates)
        before = tuple(replace(zone, serial=0) for zone in self._zones)
        if zones != before or server != self._server:
            self._zones = self._with_serials(zones)
            self._since_s = now
            self._server = server
            self._send_zones()
        self._desired = dict(_listeners(publish.uplinks)) if server.zones else {}
        self._process.keep(needed=bool(self._desired))
        self._listen(now)

    def _server_started(self, held: Held, spare: Held) -> None:
        """Take over the sockets that it answers on, and those of its predecessors."""
        self._running = True
        self._answered = {
            (listen.transport, listen.address): _Answered(listen.number, listen.arrivals)
            for listen, _ in held
        }
        self._numbers = count(1 + max((listen.number for listen, _ in held), default=0))
        for listen, sock in (*held, *spare):
            self._take(listen, sock)
        self._send_zones()
        self._listen(time.monotonic())

    def _take(self, listen: Listen, sock: socket.socket) -> None:
        if before := self._sockets.pop((listen.transport, listen.address), None):
            before.close()
        self._sockets[listen.transport, listen.address] = sock

    def _server_ended(self) -> None:
        self._running = False
        self._answered.clear()

    def frontend_started(self) -> None:
        """It has no part in this."""

    def frontend_ended(self) -> None:
        """It has no part in this."""

    async def close(self) -> None:
        """The server goes on without us."""
        for timer in (self._retry, self._roll):
            if timer is not None:
                timer.cancel()
        for sock in self._sockets.values():
            sock.close()

    # --- zones ----------------------------------------------------------------------------

    def _with_serials(self, zones: Sequence[Zone]) -> tuple[Zone, ...]:
        """The zones with their serials: a new serial for each zone that differs from what was
        published last, by this engine or an earlier one."""
        known = self._store.read(SERIALS) or {}
        with_serials = []
        for zone in zones:
            digest = sha256(repr(zone).encode()).hexdigest()
            last = known.get(zone.zone) or _Serial(0, "")
            serial = last.serial
            if not serial or digest != last.digest:
                serial = next_serial(serial or None, time.time())
            known[zone.zone] = _Serial(serial, digest, self._compare_glue(zone, last.glue))
            with_serials.append(replace(zone, serial=serial))
        self._store.write(SERIALS, known)  # served anyway, though a serial may be used again
        return tuple(with_serials)

    def _compare_glue(self, zone: Zone, before: dict[str, str]) -> dict[str, str]:
        """Note which glue of the parent is stale, as the address of a name server changed; return
        the glue that it should have. A missing address is most likely to come back."""
        glue = zone_glue(zone)
        for record, address in glue.items():
            if (old := before.get(record, address)) != address:
                text = f"{zone.zone}: {record} {old} is now {address}; change the parent's glue"
                self._event_log.note("dns", text, level=logging.WARNING)
        return before | glue

    def _send_zones(self) -> None:
        if self._roll is not None:
            self._roll.cancel()
        if not self._running or self._server == ServerConfig():
            return
        for zone in self._zones:
            self._process.post(ZoneHead(zone.zone, zone.serial, zone.contact, zone.nameservers), ())
            for name in zone.names:
                addresses = tuple((a.uplink, a.address, a.weight) for a in name.addresses)
                records = tuple((record.type, record.rdata.hex()) for record in name.records)
                self._process.post(
                    ZoneName(name.name, name.policy, name.ttl, addresses, records), ()
                )
        secondaries = tuple((s.address, s.port, s.key) for s in self._server.secondaries)
        cookies, current_s = self._cookies.current()
        self._process.post(ZoneEnd(secondaries, self._server.rate_limit, cookies), ())
        self._roll = asyncio.get_running_loop().call_later(current_s, self._send_zones)

    # --- sockets --------------------------------------------------------------------------

    def _listen(self, now: float) -> None:
        """Open the sockets that are missing, have the server answer on all, and close those that
        aren't needed any more."""
        for listener in [each for each in self._sockets if each not in self._desired]:
            self._close(listener)
        self._faults = {p: fault for p, fault in self._faults.items() if p in self._desired}
        for listener, arrivals in self._desired.items() if self._running else ():
            fault = self._faults.get(listener)
            if fault and now < fault.retry_s:
                continue
            try:
                self._answer(listener, arrivals)
            except OSError as error:
                self._failed(now, listener, error)
            else:
                self._faults.pop(listener, None)
        if self._faults and (self._retry is None or self._retry.when() <= now):
            loop = asyncio.get_running_loop()
            self._retry = loop.call_at(now + _RETRY_S, self._listen_again)
        if self._running:
            self._process.handed_over()

    def _listen_again(self) -> None:
        self._listen(time.monotonic())

    def _answer(self, listener: Listener, arrivals: Arrivals) -> None:
        """Have the server answer on a socket, unless it does already."""
        transport, address = listener
        port, several = self._server.port, len(arrivals) > 1
        sock = self._sockets.get(listener)
        if sock and sock.getsockname()[1] != port:
            self._close(listener)
        answered = self._answered.get(listener)
        if answered and answered.arrivals == arrivals:
            return
        if answered:
            self._process.post(Unlisten(answered.number), ())
        if listener not in self._sockets:
            udp = transport == "udp"
            opened = open_dns_sockets.udp_listener if udp else open_dns_sockets.tcp_listener
            self._sockets[listener] = opened(address, port)
        sock, number = self._sockets[listener], next(self._numbers)
        if transport == "udp" and several:
            open_dns_sockets.receive_marks(sock)
        self._process.post(Listen(number, transport, address, arrivals), (sock.fileno(),))
        self._answered[listener] = _Answered(number, arrivals)

    def _close(self, listener: Listener) -> None:
        if answered := self._answered.pop(listener, None):
            self._process.post(Unlisten(answered.number), ())
        self._sockets.pop(listener).close()

    def _failed(self, now: float, listener: Listener, error: OSError) -> None:
        transport, address = listener
        where = f"port {self._server.port} of {address} ({transport})"
        text = f"{where}: {reason(error)}"
        fault = self._faults.get(listener)
        if error.errno == errno.EADDRINUSE:
            if fault and fault.text.startswith(f"{where} is in use"):
                text = fault.text  # looking up the process is slow
            else:
                by = (
                    open_dns_sockets.holder(transport, address, self._server.port)
                    or "another process"
                )
                text = (
                    f"{where} is in use by {by}: stop it, have it listen elsewhere, or set"
                    " dns.server.port and redirect to it"
                )
        if fault is None or fault.text != text:
            self._event_log.note("dns", text, level=logging.WARNING)
            fault = _Fault(now, text)
        fault.retry_s = now + _RETRY_S
        self._faults[listener] = fault

    def statuses(self) -> Iterator[PublisherStatus]:
        for zone in self._zones:
            yield PublisherStatus(
                "server",
                f"port {self._server.port}",
                zone.zone,
                "",
                "current" if self._answered else "pending",
                self._since_s,
                f"serial {zone.serial}, {len(self._answered)} sockets",
            )
        for (transport, address), fault in self._faults.items():
            where = f"{address} {transport}"
            yield PublisherStatus("server", where, "", "", "failing", fault.since_s, fault.text)


def _listeners(uplinks: Sequence[Uplink]) -> Iterator[tuple[Listener, Arrivals]]:
    """The sockets to open, each with the uplinks that have its address and, if there are several,
    the arrival marks that distinguish them."""
    owners: dict[str, list[Uplink]] = {}
    for uplink in uplinks:
        for address in uplink.addresses:
            temporary = address.family == 6 and address.secondary
            if not address.tentative and not temporary:
                owners.setdefault(address.address, []).append(uplink)
    for text, sharing in owners.items():
        shared = len(sharing) > 1
        arrivals = tuple((u.arrival_mark if shared else 0, u.name) for u in sharing)
        for transport in _TRANSPORTS:
            yield (transport, text), arrivals

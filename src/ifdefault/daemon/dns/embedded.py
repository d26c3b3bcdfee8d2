"""The engine's part of the embedded DNS server: sockets, zones and their serials.

Rules: one socket for each uplink address and transport, opened here and passed to the frontend,
which answers queries. A serial is on disk before it is published. A socket that can't be opened,
since the address isn't there yet or the port is in use, is retried; the error names the process
that uses the port.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from typing import Annotated

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.status import PublisherStatus
from ifdefault.dns.publish import next_serial, serve
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.ipc import fields
from ifdefault.ipc.messages import Listen, Message, Transport, Unlisten, ZoneEnd, ZoneHead, ZoneName
from ifdefault.kernel import open_dns_sockets
from ifdefault.model.dns import ServerConfig, Zone
from ifdefault.model.errors import reason
from ifdefault.model.kernel import Uplink


@dataclass(frozen=True, slots=True)
class _Serial:
    """`digest`: of the zone that was published with it."""

    serial: Annotated[int, fields.number(1, (1 << 32) - 1)]
    digest: str


SERIALS: StateFile[dict[str, _Serial]] = StateFile(
    "serials.json", dict[str, _Serial], "the next serials are taken from the time"
)
_RETRY_S = 2.0  # for a port in use, or an address that isn't there yet
_TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
Listener = tuple[Transport, str]  # transport, address
Arrivals = tuple[tuple[int, str], ...]
Post = Callable[[Message, tuple[int, ...]], None]


@dataclass(slots=True)
class _Socket:
    number: int  # identifies the socket in messages to the frontend
    arrivals: Arrivals


@dataclass(slots=True)
class _Fault:
    since_s: float
    text: str
    retry_s: float = field(default=0.0)


class Nameserver:
    def __init__(self, store: Store, post: Post, event_log: EventLog) -> None:
        self._store, self._post, self._event_log = store, post, event_log
        self._numbers = count(1)
        self._server = ServerConfig()
        self._zones: tuple[Zone, ...] = ()  # as published last
        self._since_s = 0.0
        self._desired: dict[Listener, Arrivals] = {}
        self._sockets: dict[Listener, _Socket] = {}
        self._faults: dict[Listener, _Fault] = {}
        self._frontend = False  # whether one is running
        self._retry: asyncio.TimerHandle | None = None

    def publish(self, now: float, publish: Publish) -> None:
        config = publish.config
        server = config.dns.server
        zones = serve(config.dns, publish.published, publish.candidates)
        before = tuple(replace(zone, serial=0) for zone in self._zones)
        if zones != before or server != self._server:
            self._zones = self._with_serials(zones)
            self._since_s = now
            port_changed, self._server = server.port != self._server.port, server
            if port_changed:
                for listener in list(self._sockets):
                    self._unlisten(listener)
            self._send_zones()
        self._desired = dict(_listeners(publish.uplinks)) if server.zones else {}
        self._listen(now)

    def frontend_started(self) -> None:
        """Send it the zones and sockets."""
        self._frontend = True
        self._send_zones()
        self._listen(time.monotonic())

    def frontend_ended(self) -> None:
        self._frontend = False
        self._sockets.clear()

    async def close(self) -> None:
        """The frontend's sockets are closed when it ends."""
        if self._retry is not None:
            self._retry.cancel()

    # --- zones ----------------------------------------------------------------------------

    def _with_serials(self, zones: Sequence[Zone]) -> tuple[Zone, ...]:
        """The zones with their serials: a new serial for each zone that differs from what was
        published last, by this engine or an earlier one."""
        known = self._store.read(SERIALS) or {}
        with_serials = []
        for zone in zones:
            digest = sha256(repr(zone).encode()).hexdigest()
            last = known.get(zone.zone)
            if last is None or digest != last.digest:
                serial = next_serial(last.serial if last else None, time.time())
                known[zone.zone] = last = _Serial(serial, digest)
            with_serials.append(replace(zone, serial=last.serial))
        self._store.write(SERIALS, known)  # served anyway, though a serial may be used again
        return tuple(with_serials)

    def _send_zones(self) -> None:
        if not self._frontend or self._server == ServerConfig():
            return
        for zone in self._zones:
            self._post(ZoneHead(zone.zone, zone.serial, zone.contact, zone.nameservers), ())
            for name in zone.names:
                addresses = tuple((a.uplink, a.address, a.weight) for a in name.addresses)
                records = tuple((record.type, record.rdata.hex()) for record in name.records)
                self._post(ZoneName(name.name, name.policy, name.ttl, addresses, records), ())
        secondaries = tuple((s.address, s.port, s.key) for s in self._server.secondaries)
        self._post(ZoneEnd(secondaries, self._server.rate_limit), ())

    # --- sockets --------------------------------------------------------------------------

    def _listen(self, now: float) -> None:
        """Open the sockets that are missing, and close those that aren't needed any more."""
        for listener, sock in list(self._sockets.items()):
            if self._desired.get(listener) != sock.arrivals:
                self._unlisten(listener)
        self._faults = {p: fault for p, fault in self._faults.items() if p in self._desired}
        for listener, arrivals in self._desired.items() if self._frontend else ():
            fault = self._faults.get(listener)
            if listener in self._sockets or (fault and now < fault.retry_s):
                continue
            try:
                self._open(listener, arrivals)
            except OSError as error:
                self._failed(now, listener, error)
            else:
                self._faults.pop(listener, None)
        if self._faults and (self._retry is None or self._retry.when() <= now):
            loop = asyncio.get_running_loop()
            self._retry = loop.call_at(now + _RETRY_S, self._listen_again)

    def _listen_again(self) -> None:
        self._listen(time.monotonic())

    def _open(self, listener: Listener, arrivals: Arrivals) -> None:
        transport, address = listener
        if transport == "udp":
            several = len(arrivals) > 1
            sock = open_dns_sockets.udp_listener(address, self._server.port, receive_mark=several)
        else:
            sock = open_dns_sockets.tcp_listener(address, self._server.port)
        with sock:
            number = next(self._numbers)
            self._post(Listen(number, transport, address, arrivals), (sock.fileno(),))
        self._sockets[listener] = _Socket(number, arrivals)

    def _unlisten(self, listener: Listener) -> None:
        self._post(Unlisten(self._sockets.pop(listener).number), ())

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
                "current" if self._sockets else "pending",
                self._since_s,
                f"serial {zone.serial}, {len(self._sockets)} sockets",
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

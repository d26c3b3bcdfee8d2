"""The embedded server, seen from the engine: its sockets, its zones and their serials.

Rules: one socket for each address of an uplink and each transport, made here and handed to the
frontend, which answers. A serial is on disk before anybody hears of it. An address that isn't there
yet, or whose port is taken, is tried again; what is wrong is told by whom and what to do.
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

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.status import OutletStatus
from ifdefault.dns.publish import next_serial, serve
from ifdefault.host.store import Store
from ifdefault.ipc.messages import Listen, Message, Transport, Unlisten, ZoneEnd, ZoneHead, ZoneName
from ifdefault.kernel import open_dns_sockets
from ifdefault.model.dns import ServerConfig, Zone
from ifdefault.model.errors import IfdefaultError, reason
from ifdefault.model.kernel import Uplink

SERIALS = "serials.json"
_AGAIN_S = 2.0  # a port that is taken, an address that isn't there yet
_TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
Place = tuple[Transport, str]  # and its address
Arrivals = tuple[tuple[int, str], ...]
Post = Callable[[Message, tuple[int, ...]], None]


@dataclass(slots=True)
class _Socket:
    number: int  # the socket's in messages to the frontend
    arrivals: Arrivals


@dataclass(slots=True)
class _Fault:
    since_s: float
    text: str
    again_s: float = field(default=0.0)


class Nameserver:
    def __init__(self, store: Store, post: Post, event_log: EventLog) -> None:
        self._store, self._post, self._event_log = store, post, event_log
        self._numbers = count(1)
        self._server = ServerConfig()
        self._zones: tuple[Zone, ...] = ()  # as they are told
        self._since_s = 0.0
        self._wanted: dict[Place, Arrivals] = {}
        self._sockets: dict[Place, _Socket] = {}
        self._faults: dict[Place, _Fault] = {}
        self._listening = False  # whether there is a frontend
        self._unsaved = ""
        self._again: asyncio.TimerHandle | None = None

    def take(self, now: float, publish: Publish) -> None:
        config = publish.config
        server = config.dns.server
        wanted = serve(config.dns, publish.published, publish.candidates)
        told = tuple(replace(zone, serial=0) for zone in self._zones)
        if wanted != told or server != self._server:
            self._zones = self._numbered(wanted)
            self._since_s = now
            moved, self._server = server.port != self._server.port, server
            if moved:
                for place in list(self._sockets):
                    self._unlisten(place)
            self._tell()
        self._wanted = dict(_places(publish.uplinks)) if server.zones else {}
        self._listen(now)

    def frontend_started(self) -> None:
        """Tell it all anew: what an earlier one had is closed."""
        self._listening = True
        self._tell()
        self._listen(time.monotonic())

    def frontend_ended(self) -> None:
        self._listening = False
        self._sockets.clear()

    async def close(self) -> None:
        """The frontend's sockets end with it."""
        if self._again is not None:
            self._again.cancel()

    # --- zones ----------------------------------------------------------------------------

    def _numbered(self, zones: Sequence[Zone]) -> tuple[Zone, ...]:
        """The zones with their serials: a new one for each that differs from what was last told,
        also by an earlier engine."""
        try:
            kept = self._store.read(SERIALS) or {}
            known = {zone: (int(row["serial"]), str(row["digest"])) for zone, row in kept.items()}
        except (IfdefaultError, AttributeError, KeyError, TypeError, ValueError) as error:
            self._event_log.note("dns", f"{SERIALS} is passed over: {error}", level=logging.WARNING)
            known = {}
        numbered = []
        for zone in zones:
            digest = sha256(repr(zone).encode()).hexdigest()
            last, before = known.get(zone.zone, (None, ""))
            serial = last if last and digest == before else next_serial(last, time.time())
            known[zone.zone] = (serial, digest)
            numbered.append(replace(zone, serial=serial))
        rows = {zone: {"serial": s, "digest": digest} for zone, (s, digest) in known.items()}
        try:
            self._store.write(SERIALS, rows)
            self._unsaved = ""
        except IfdefaultError as error:  # better to answer by a serial that may come again
            self._unsaved = str(error)
            self._event_log.note("dns", f"serials: {error}", level=logging.ERROR)
        return tuple(numbered)

    def _tell(self) -> None:
        if not self._listening or self._server == ServerConfig():
            return
        for zone in self._zones:
            self._post(ZoneHead(zone.zone, zone.serial, zone.contact, zone.nameservers), ())
            for each in zone.names:
                handed = tuple((h.uplink, h.address, h.weight) for h in each.addresses)
                records = tuple((record.type, record.rdata.hex()) for record in each.records)
                self._post(ZoneName(each.name, each.policy, each.ttl, handed, records), ())
        secondaries = tuple((s.address, s.port, s.key) for s in self._server.secondaries)
        self._post(ZoneEnd(secondaries, self._server.rate_limit), ())

    # --- sockets --------------------------------------------------------------------------

    def _listen(self, now: float) -> None:
        """Open what is wanted and isn't there, close what isn't wanted any more."""
        for place, sock in list(self._sockets.items()):
            if self._wanted.get(place) != sock.arrivals:
                self._unlisten(place)
        self._faults = {p: fault for p, fault in self._faults.items() if p in self._wanted}
        for place, arrivals in self._wanted.items() if self._listening else ():
            fault = self._faults.get(place)
            if place in self._sockets or (fault and now < fault.again_s):
                continue
            try:
                self._open(place, arrivals)
            except OSError as error:
                self._failed(now, place, error)
            else:
                self._faults.pop(place, None)
        if self._faults and (self._again is None or self._again.when() <= now):
            loop = asyncio.get_running_loop()
            self._again = loop.call_at(now + _AGAIN_S, self._listen_again)

    def _listen_again(self) -> None:
        self._listen(time.monotonic())

    def _open(self, place: Place, arrivals: Arrivals) -> None:
        transport, address = place
        if transport == "udp":
            several = len(arrivals) > 1
            sock = open_dns_sockets.udp_listener(address, self._server.port, receive_mark=several)
        else:
            sock = open_dns_sockets.tcp_listener(address, self._server.port)
        with sock:
            number = next(self._numbers)
            self._post(Listen(number, transport, address, arrivals), (sock.fileno(),))
        self._sockets[place] = _Socket(number, arrivals)

    def _unlisten(self, place: Place) -> None:
        self._post(Unlisten(self._sockets.pop(place).number), ())

    def _failed(self, now: float, place: Place, error: OSError) -> None:
        transport, address = place
        where = f"port {self._server.port} of {address} ({transport})"
        text = f"{where}: {reason(error)}"
        fault = self._faults.get(place)
        if error.errno == errno.EADDRINUSE:
            if fault and fault.text.startswith(f"{where} is taken"):
                text = fault.text  # to find out who takes long
            else:
                by = (
                    open_dns_sockets.holder(transport, address, self._server.port)
                    or "another process"
                )
                text = (
                    f"{where} is taken by {by}: stop it, let it listen elsewhere, or set"
                    " dns.server.port and redirect to it"
                )
        if fault is None or fault.text != text:
            self._event_log.note("dns", text, level=logging.WARNING)
            fault = _Fault(now, text)
        fault.again_s = now + _AGAIN_S
        self._faults[place] = fault

    def standings(self) -> Iterator[OutletStatus]:
        for zone in self._zones:
            yield OutletStatus(
                "server",
                f"port {self._server.port}",
                zone.zone,
                "",
                "failing" if self._unsaved else "current" if self._sockets else "pending",
                self._since_s,
                self._unsaved or f"serial {zone.serial}, {len(self._sockets)} sockets",
            )
        for (transport, address), fault in self._faults.items():
            where = f"{address} {transport}"
            yield OutletStatus("server", where, "", "", "failing", fault.since_s, fault.text)


def _places(uplinks: Sequence[Uplink]) -> Iterator[tuple[Place, Arrivals]]:
    """The sockets that are wanted, each with the uplinks that lead to its address and, where there
    are several, the marks that tell them apart."""
    owners: dict[str, list[Uplink]] = {}
    for uplink in uplinks:
        for each in uplink.addresses:
            temporary = each.family == 6 and each.secondary
            if not each.tentative and not temporary:
                owners.setdefault(each.address, []).append(uplink)
    for address, its in owners.items():
        shared = len(its) > 1
        arrivals = tuple((u.arrival_mark if shared else 0, u.name) for u in its)
        for transport in _TRANSPORTS:
            yield (transport, address), arrivals

"""The engine's part of the embedded DNS server: zones and their serials (its sockets: `listeners`).

Rules: the DNS server is a process that outlives the engine (`process.dns_server`). Until this
engine publishes, it answers by the zones of the engine before. A serial is on disk before it is
published.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Annotated

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.cookie_secrets import CookieSecrets
from ifdefault.daemon.dns.listeners import Listeners
from ifdefault.daemon.dns.update_counts import UpdateCounts
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.dns_connection import Held
from ifdefault.daemon.process.dns_server import DnsServerProcess
from ifdefault.dns.delegation import zone_glue
from ifdefault.dns.publish import next_serial, serve
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.ipc import fields
from ifdefault.ipc.messages import ZoneEnd, ZoneHead, ZoneName
from ifdefault.model.dns import ServerConfig, Zone
from ifdefault.model.report import PublisherStatus


@dataclass(frozen=True, slots=True)
class _Serial:
    """`digest`: of the zone that was published with it, but for weights; `glue`: what its parent
    should have."""

    serial: Annotated[int, fields.number(0, (1 << 32) - 1)]
    digest: str
    glue: dict[str, str] = field(default_factory=dict)


SERIALS: StateFile[dict[str, _Serial]] = StateFile(
    "serials.json", dict[str, _Serial], "the next serials are taken from the time"
)


class Nameserver:
    def __init__(self, store: Store, process: DnsServerProcess, event_log: EventLog) -> None:
        self._store, self._process, self._event_log = store, process, event_log
        process.started, process.ended = self._server_started, self._server_ended
        self.counts = UpdateCounts()
        self._listeners = Listeners(process, event_log)
        self._cookies = CookieSecrets(store)
        self._server = ServerConfig()
        self._zones: tuple[Zone, ...] = ()  # as published last
        self._since_s = 0.0
        self._running = False  # a DNS server
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
            if zones:
                self.counts.record("server", f"port {server.port}", failed=False)
        uplinks = publish.uplinks if server.zones else ()
        self._process.keep(needed=self._listeners.update(uplinks, server.port))
        self._listeners.listen()

    def _server_started(self, held: Held, spare: Held) -> None:
        self._running = True
        self._listeners.server_started(held, spare)
        self._send_zones()
        self._listeners.listen()

    def _server_ended(self) -> None:
        self._running = False
        self._listeners.server_ended()

    def frontend_started(self) -> None:
        """It has no part in this."""

    def frontend_ended(self) -> None:
        """It has no part in this."""

    async def close(self) -> None:
        """The server goes on without us."""
        if self._roll is not None:
            self._roll.cancel()
        self._listeners.close()

    # --- zones ----------------------------------------------------------------------------

    def _with_serials(self, zones: Sequence[Zone]) -> tuple[Zone, ...]:
        """The zones with their serials: a new serial for each zone that differs from what was
        published last, by this engine or an earlier one."""
        known = self._store.read(SERIALS) or {}
        with_serials = []
        for zone in zones:
            seen = replace(zone, names=tuple(name.unweighted for name in zone.names))
            digest = sha256(repr(seen).encode()).hexdigest()
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
                self._event_log.note("dns", text, severity="warning")
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

    # --- status ---------------------------------------------------------------------------

    def statuses(self) -> Iterator[PublisherStatus]:
        answered = self._listeners.answered
        for zone in self._zones:
            yield PublisherStatus(
                "server",
                f"port {self._server.port}",
                zone.zone,
                "",
                "current" if answered else "pending",
                self._since_s,
                f"serial {zone.serial}, {answered} sockets",
            )
        for where, since_s, text in self._listeners.faults():
            yield PublisherStatus("server", where, "", "", "failing", since_s, text)

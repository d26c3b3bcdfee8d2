"""Discovers the public address of an uplink behind its provider's NAT, by services on the Internet.

    [dns] discover ──> request over the uplink ──> public address ──> controller

Rules: only for uplinks with `public = "discover"`. Services are asked in order, until one answers
with a public address; private addresses, as from a captive portal or an intercepting resolver, are
ignored. This is done when a path comes up or changes, and repeated from time to time. A discovered
address remains valid, across restarts too, until another is discovered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ifdefault.config.probe_url import parse_url
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.requests import Requests
from ifdefault.host.saved_state import DISCOVERED
from ifdefault.host.store import Store
from ifdefault.ipc import tasks
from ifdefault.ipc.messages import Asked, Reply
from ifdefault.model.address import family_of, is_address, is_public
from ifdefault.model.config import FAMILIES, Config, Family, Probe
from ifdefault.model.dns import DISCOVER, Endpoint
from ifdefault.model.health import Way

AGAIN_S = 300.0
SOON_S = 30.0  # while it is unknown

Key = tuple[str, Family]  # of an uplink's name
Notify = Callable[[str, Family, str], None]


class Discovery:
    """`notify` is called for each new address, and for saved ones when an uplink first needs it."""

    def __init__(
        self, requests: Requests, event_log: EventLog, store: Store, notify: Notify
    ) -> None:
        self._requests, self._event_log, self._store = requests, event_log, store
        self._notify = notify
        self._services: tuple[Probe, ...] = ()
        self._tasks: dict[Key, tuple[Way, asyncio.Task[None]]] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}  # of services given by name
        self._unresolved: dict[str, str] = {}
        self._known = self._load()
        self._notified: set[Key] = set()
        self._problems: dict[Key, str] = {}

    @property
    def known(self) -> dict[Key, str]:
        """The discovered addresses, also those of an earlier engine."""
        return dict(self._known)

    def hosts(self) -> set[str]:
        """Names of services to resolve."""
        services = self._services if self._tasks else ()
        return {service.host for service in services if not is_address(service.host)}

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(text for _, text in sorted(self._problems.items()))

    def update(self, config: Config, ways: Sequence[Way]) -> None:
        """Use this config, and these ways, from now on."""
        uplinks = {uplink.name for uplink in config.uplinks if DISCOVER in uplink.public}
        for key in [(name, family) for name in sorted(uplinks) for family in FAMILIES]:
            if key in self._known and key not in self._notified:
                self._notified.add(key)
                self._notify(*key, self._known[key])
        services = tuple(map(parse_url, config.dns.discover))
        usable = {(way.uplink, way.family): way for way in ways if way.uplink in uplinks}
        for key in list(self._tasks):
            if usable.get(key) != self._tasks[key][0] or services != self._services:
                self._tasks.pop(key)[1].cancel()
                self._problems.pop(key, None)
        self._services = services
        for key, way in usable.items():
            if key not in self._tasks and services:
                self._start(way)

    def resolved(self, host: str, addresses: tuple[str, ...], error: str) -> None:
        """The addresses of a service's name; if they are the first, ask it at once."""
        if not addresses:
            self._unresolved[host] = error
            return
        new = host not in self._addresses
        self._addresses[host] = addresses
        if new and host in self.hosts():
            self._restart(only_unknown=True)

    def frontend_started(self) -> None:
        """Requests to the previous frontend were lost."""
        self._restart(only_unknown=False)

    async def close(self) -> None:
        asking = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        await tasks.end(*asking)

    # --- requests -------------------------------------------------------------------------

    def _restart(self, *, only_unknown: bool) -> None:
        for key, (way, task) in list(self._tasks.items()):
            if not only_unknown or key not in self._known:
                task.cancel()
                self._start(way)

    def _start(self, way: Way) -> None:
        self._tasks[way.uplink, way.family] = way, tasks.start(self._run(way))

    async def _run(self, way: Way) -> None:
        """Ask the services again and again, over one uplink in one family."""
        key = (way.uplink, way.family)
        while True:
            errors: list[str] = []
            for service in self._services:
                address, error = await self._ask(way, service)
                if address:
                    self._succeeded(key, address, service)
                    break
                if error:
                    errors.append(f"{service}: {error}")
            else:
                self._failed(key, errors)
            await asyncio.sleep(SOON_S if key in self._problems else AGAIN_S)

    async def _ask(self, way: Way, service: Probe) -> tuple[str, str]:
        """The address that a service answers, or an error; neither if the service has no address
        in this family."""
        known = (service.host,) if is_address(service.host) else self._addresses.get(service.host)
        if known is None:
            return "", self._unresolved.get(service.host, "its name is not resolved yet")
        fit = [address for address in known if family_of(address) == way.family]
        if not fit:
            return "", ""
        reply = await self._exchange(way, service, fit[0])
        if reply.error:
            return "", reply.error
        for text in reply.texts:
            if is_public(text, way.family):
                return text, ""
        text = ", ".join(reply.texts)
        return "", f"{text} is not a public IPv{way.family} address" if text else "no address"

    async def _exchange(self, way: Way, service: Probe, address: str) -> Reply:
        if service.kind == "dns":
            server = Endpoint(address, service.port)
            kind: Asked = "A" if way.family == 4 else "AAAA"
            return await self._requests.query(way, server, service.path, kind, recurse=True)
        where = (address, service.port, service.host, service.path)
        return await self._requests.fetch(way, *where, secure=service.kind == "https")

    # --- results --------------------------------------------------------------------------

    def _succeeded(self, key: Key, address: str, service: Probe) -> None:
        self._problems.pop(key, None)
        if self._known.get(key) == address:
            return
        name, family = key
        self._known[key] = address
        self._notified.add(key)
        self._save()
        text = f"{name}: public IPv{family} address {address} (from {service})"
        self._event_log.note("dns", text, name)
        self._notify(name, family, address)

    def _failed(self, key: Key, errors: Sequence[str]) -> None:
        name, family = key
        why = "; ".join(errors) or f"no service of dns.discover has an IPv{family} address"
        text = f"uplink.{name}: public IPv{family} address unknown: {why}"
        if self._problems.get(key) != text:
            self._problems[key] = text
            self._event_log.note("dns", text, name, "warning")

    def _load(self) -> dict[Key, str]:
        rows = self._store.read(DISCOVERED) or ()
        return {(name, family): text for name, family, text in rows if is_public(text, family)}

    def _save(self) -> None:
        rows = tuple((*key, address) for key, address in sorted(self._known.items()))
        self._store.write(DISCOVERED, rows)

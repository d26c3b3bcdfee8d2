"""What the Internet sees an uplink as that is behind its provider's NAT: asked of others, over it.

    [dns] discover ──> ask, by each way of the uplink ──> sound address ──> publisher

Rules: only for uplinks whose `public` says so. Services are asked in their order; the first whose
answer may be an address of the Internet has the last word, so that one that lies by a private
address (a portal, a resolver on the way) is passed over. It is asked when a way comes up or
changes, and again from time to time. What was found stays known, also across restarts, until
something else is found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from ifdefault.config.probe_url import parse_url
from ifdefault.daemon.controller.paths import is_address
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.requests import Requests
from ifdefault.host.store import Store
from ifdefault.ipc.messages import Asked, Reply
from ifdefault.model.address import family_of, is_private
from ifdefault.model.config import FAMILIES, Config, Family, Probe
from ifdefault.model.dns import DISCOVER, Endpoint
from ifdefault.model.errors import HostError
from ifdefault.model.health import Way

DISCOVERED = "discovered.json"
AGAIN_S = 300.0
SOON_S = 30.0  # while it isn't known

Key = tuple[str, Family]  # of an uplink's name
Found = Callable[[str, Family, str], None]


class Discovery:
    """`found` is told of every address that is new, and at the start of those that were known."""

    def __init__(
        self, exchanges: Requests, event_log: EventLog, store: Store, found: Found
    ) -> None:
        self._exchanges, self._event_log, self._store, self._tell = (
            exchanges,
            event_log,
            store,
            found,
        )
        self._services: tuple[Probe, ...] = ()
        self._asked: dict[Key, tuple[Way, asyncio.Task[None]]] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}  # of services that go by name
        self._unresolved: dict[str, str] = {}
        self._known = self._load()
        self._told: set[Key] = set()
        self._problems: dict[Key, str] = {}

    @property
    def known(self) -> dict[Key, str]:
        """What was found out, also by an earlier engine."""
        return dict(self._known)

    def hosts(self) -> set[str]:
        """Names that must be resolved."""
        wanted = self._services if self._asked else ()
        return {service.host for service in wanted if not is_address(service.host)}

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(text for _, text in sorted(self._problems.items()))

    def follow(self, config: Config, ways: Sequence[Way]) -> None:
        """Take in what is configured, and by which ways one may ask now."""
        wanted = {each.name for each in config.uplinks if DISCOVER in each.public}
        for key in [(name, family) for name in sorted(wanted) for family in FAMILIES]:
            if key in self._known and key not in self._told:
                self._told.add(key)
                self._tell(*key, self._known[key])
        services = tuple(map(parse_url, config.dns.discover))
        open_ways = {(way.uplink, way.family): way for way in ways if way.uplink in wanted}
        for key in list(self._asked):
            if open_ways.get(key) != self._asked[key][0] or services != self._services:
                self._asked.pop(key)[1].cancel()
                self._problems.pop(key, None)
        self._services = services
        for key, way in open_ways.items():
            if key not in self._asked and services:
                self._ask(way)

    def resolved(self, host: str, addresses: tuple[str, ...], error: str) -> None:
        """A name's addresses; who waited for them asks at once."""
        if not addresses:
            self._unresolved[host] = error
            return
        new = host not in self._addresses
        self._addresses[host] = addresses
        if new and host in self.hosts():
            self._ask_again(unknown_alone=True)

    def frontend_started(self) -> None:
        """Whatever was asked of the frontend before is lost."""
        self._ask_again(unknown_alone=False)

    async def close(self) -> None:
        tasks = [task for _, task in self._asked.values()]
        self._asked.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- asking ---------------------------------------------------------------------------

    def _ask_again(self, *, unknown_alone: bool) -> None:
        for key, (way, task) in list(self._asked.items()):
            if not unknown_alone or key not in self._known:
                task.cancel()
                self._ask(way)

    def _ask(self, way: Way) -> None:
        self._asked[way.uplink, way.family] = way, asyncio.create_task(self._keep_asking(way))

    async def _keep_asking(self, way: Way) -> None:
        key = (way.uplink, way.family)
        while True:
            refusals: list[str] = []
            for service in self._services:
                address, refusal = await self._answer(way, service)
                if address:
                    self._take(key, address, service)
                    break
                if refusal:
                    refusals.append(f"{service}: {refusal}")
            else:
                self._miss(key, refusals)
            await asyncio.sleep(SOON_S if key in self._problems else AGAIN_S)

    async def _answer(self, way: Way, service: Probe) -> tuple[str, str]:
        """The address that a service says, or why none; neither where it can't be asked so."""
        known = (service.host,) if is_address(service.host) else self._addresses.get(service.host)
        if known is None:
            return "", self._unresolved.get(service.host, "its name isn't resolved yet")
        fit = [address for address in known if family_of(address) == way.family]
        if not fit:
            return "", ""
        reply = await self._exchange(way, service, fit[0])
        if reply.error:
            return "", reply.error
        for text in reply.texts:
            if is_sound(text, way.family):
                return text, ""
        said = ", ".join(reply.texts)
        return "", f"{said} is no IPv{way.family} address of the Internet" if said else "no address"

    async def _exchange(self, way: Way, service: Probe, address: str) -> Reply:
        if service.kind == "dns":
            server = Endpoint(address, service.port)
            wanted: Asked = "A" if way.family == 4 else "AAAA"
            return await self._exchanges.query(way, server, service.path, wanted, recurse=True)
        where = (address, service.port, service.host, service.path)
        return await self._exchanges.fetch(way, *where, secure=service.kind == "https")

    # --- what comes of it -----------------------------------------------------------------

    def _take(self, key: Key, address: str, service: Probe) -> None:
        self._problems.pop(key, None)
        if self._known.get(key) == address:
            return
        name, family = key
        self._known[key] = address
        self._told.add(key)
        self._save()
        text = f"{name} IPv{family} is seen as {address}, says {service}"
        self._event_log.note("dns", text, name)
        self._tell(name, family, address)

    def _miss(self, key: Key, refusals: Sequence[str]) -> None:
        name, family = key
        why = "; ".join(refusals) or f"no service of dns.discover can be asked by IPv{family}"
        text = f"uplink.{name}: what IPv{family} is seen as isn't found out: {why}"
        if self._problems.get(key) != text:
            self._problems[key] = text
            self._event_log.note("dns", text, name, logging.WARNING)

    def _load(self) -> dict[Key, str]:
        try:
            rows = self._store.read(DISCOVERED) or ()
            known: dict[Key, str] = {(name, family): text for name, family, text in rows}
        except (HostError, TypeError, ValueError) as error:
            path = self._store.directory / DISCOVERED
            self._event_log.note("dns", f"{path} is passed over: {error}", level=logging.WARNING)
            return {}
        return {key: text for key, text in known.items() if is_sound(str(text), key[1])}

    def _save(self) -> None:
        rows = [[*key, address] for key, address in sorted(self._known.items())]
        try:
            self._store.write(DISCOVERED, rows, durable=False)
        except HostError as error:
            self._event_log.note("dns", str(error), level=logging.WARNING)


def is_sound(text: str, family: Family) -> bool:
    """Whether this is an address of a family that the Internet may reach a host by."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    for_itself = address.is_loopback or address.is_unspecified or address.is_link_local
    never = for_itself or address.is_multicast or address.is_reserved
    return address.version == family and not never and not is_private(text)

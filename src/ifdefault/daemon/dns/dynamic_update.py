"""Publishes names by dynamic update (RFC 2136), in zones on other DNS servers.

    published ──> state of each name ── UPDATE ──> first server that accepts it
                        ^                               │ zone transfer
                        └── A, AAAA, SOA ── every server of the zone ──> statuses

Rules: a server with a key is queried with it as well, since it may show another view to others, or
nothing. An address is recorded on disk before it is sent, and removed from the record when its
removal is confirmed. One task per name, so a name that fails delays no other. Static records are
served by the embedded server only and are not published here. The TTL of an RRset is the one that
was added last, possibly by another host that shares the name; only our own changes are sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.update_counts import UpdateCounts
from ifdefault.daemon.dns.zone_servers import Pair, ZoneServers
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.requests import Requests
from ifdefault.dns.publish import names_in_zone
from ifdefault.dns.update import UpdateState, differences, usable_ways
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.ipc import fields, tasks
from ifdefault.ipc.messages import Asked
from ifdefault.model.dns import Endpoint, Published, UpdateConfig
from ifdefault.model.health import Way
from ifdefault.model.report import PublisherState, PublisherStatus

_UPDATING, _CHECKING = 8, 16  # tasks per zone at once
_MISSES = 2  # failed queries before a server counts as failing
_TYPES: tuple[Asked, ...] = ("A", "AAAA")
_NO_WAY = "no usable uplink reaches it"
Memory = dict[str, dict[str, tuple[Annotated[str, fields.address], ...]]]  # zone, name, addresses
UPDATES: StateFile[Memory] = StateFile(
    "updates.json", Memory, "old addresses may remain in zones elsewhere"
)


@dataclass(slots=True)
class _Status:
    """The status of one server for one name."""

    since_s: float
    state: PublisherState = "pending"
    detail: str = ""
    seen: tuple[str, ...] = ()
    misses: int = 0


@dataclass(slots=True)
class _Job:
    name: str
    state: UpdateState
    statuses: dict[Endpoint, _Status] = field(default_factory=dict)
    failed_s: dict[Pair, float] = field(default_factory=dict)
    refused: set[Endpoint] = field(default_factory=set)  # servers that refused the last update
    accepted_by: Endpoint | None = None
    task: asyncio.Task[None] | None = None


class _Zone:
    def __init__(self, config: UpdateConfig, requests: Requests) -> None:
        self.name = config.zone
        self.servers = ZoneServers(config, requests)
        self.jobs: dict[str, _Job] = {}
        self.failing: set[Endpoint] = set()  # as logged
        self.updating, self.checking = asyncio.Semaphore(_UPDATING), asyncio.Semaphore(_CHECKING)


class Updates:
    """A Publisher, see `daemon.dns.publisher`."""

    def __init__(self, requests: Requests, store: Store, event_log: EventLog) -> None:
        self._requests, self._store, self._event_log = requests, store, event_log
        self.counts = UpdateCounts()
        self._zones: dict[str, _Zone] = {}
        self._ways: tuple[Way, ...] = ()
        self._last: object = None
        self._memory: Memory | None = None  # as on disk, with zones no longer configured
        self._ending: set[asyncio.Task[None]] = set()

    # --- the publisher --------------------------------------------------------------------

    def publish(self, now: float, publish: Publish) -> None:
        config, published, ways = publish.config, publish.published, publish.ways
        current = (config.dns.updates, published, ways)
        if current == self._last or not (config.dns.updates or self._zones):
            return
        self._last = current
        ways_changed, self._ways = self._ways != ways, ways
        configured = {update.zone: update for update in config.dns.updates}
        for name in self._zones.keys() - configured.keys():
            for job in self._zones.pop(name).jobs.values():
                self._end(job)
        changed: list[tuple[_Zone, _Job]] = []
        for update in config.dns.updates:
            names = names_in_zone(config.dns, published, update.zone)
            zone = self._zones.setdefault(update.zone, _Zone(update, self._requests))
            new_config = zone.servers.config != update
            if new_config:
                zone.servers = ZoneServers(update, self._requests)
                zone.failing.clear()
            elif ways_changed:
                zone.servers.ways_changed()
            changed += self._changed(
                now, zone, names, new_config=new_config, ways_changed=ways_changed
            )
        self._save()
        for zone, job in changed:
            self._start(now, zone, job)

    def frontend_started(self) -> None:
        now = time.monotonic()
        for zone in self._zones.values():
            for job in list(zone.jobs.values()):
                if job.state.retry(now):
                    self._start(now, zone, job)

    def frontend_ended(self) -> None:
        """Its requests fail, and are retried."""

    def statuses(self) -> Iterator[PublisherStatus]:
        for zone in self._zones.values():
            for job in zone.jobs.values():
                for server, status in job.statuses.items():
                    where = (server.address, zone.name, job.name)
                    yield PublisherStatus(
                        "update", *where, status.state, status.since_s, status.detail, status.seen
                    )

    def hosts(self) -> tuple[str, ...]:
        """Name servers whose addresses the resolver has to look up."""
        return tuple(host for zone in self._zones.values() for host in zone.servers.unknown)

    def resolved(self, host: str, addresses: tuple[str, ...], error: str) -> None:
        """The result of such a lookup."""
        for zone in self._zones.values():
            zone.servers.resolved(host, addresses)

    async def close(self) -> None:
        for zone in self._zones.values():
            for job in zone.jobs.values():
                self._end(job)
        self._zones.clear()
        await tasks.end(*self._ending)

    # --- what to publish ------------------------------------------------------------------

    def _changed(
        self,
        now: float,
        zone: _Zone,
        published: Sequence[Published],
        *,
        new_config: bool,
        ways_changed: bool,
    ) -> Iterator[tuple[_Zone, _Job]]:
        """The names whose tasks have to be restarted."""
        remembered = self._remembered().get(zone.name, {})
        names = {name.name: name for name in published}
        for key in sorted(names.keys() | remembered.keys() | zone.jobs.keys()):
            name, job = names.get(key), zone.jobs.get(key)
            addresses = [record.address for record in name.addresses] if name else []
            if name and not addresses and job is None:
                continue  # no address is known yet: keep what is there
            if job is None:
                job = zone.jobs[key] = _Job(key, UpdateState(remembered.get(key, ())))
                if job.state.ours:  # an earlier engine may have been killed during an update
                    job.state.outcome_unknown(now)
            if addresses or not name:
                begun = job.state.want(now, addresses, name.ttl if name else 1)
            else:
                begun = False
            retry = new_config or ways_changed
            if begun or (retry and job.state.retry(now, anyway=new_config)):
                if new_config:
                    job.statuses.clear()
                yield zone, job

    def _start(self, now: float, zone: _Zone, job: _Job) -> None:
        self._end(job)
        job.failed_s.clear()
        for server in zone.servers.config.servers:
            status = job.statuses.setdefault(server, _Status(now))
            if status.state == "current":
                self._set_status(zone, job, server, "pending", "")
        job.task = tasks.start(self._run(zone, job))

    def _end(self, job: _Job) -> None:
        if job.task is not None and not job.task.done():
            job.task.cancel()
            self._ending.add(job.task)
            job.task.add_done_callback(self._ending.discard)

    # --- one name -------------------------------------------------------------------------

    async def _run(self, zone: _Zone, job: _Job) -> None:
        """Update a name, and check it on all servers, until there is nothing more to do."""
        state = job.state
        while not state.is_done:
            wake_s, ours = min(state.due_s, state.look_s), state.ours
            await asyncio.sleep(max(0.0, wake_s - time.monotonic()))
            if state.due_s <= state.look_s:
                await self._update(zone, job)
            else:
                await self._check(zone, job)
            if state.ours != ours:
                self._save()
        zone.jobs.pop(job.name, None)

    async def _update(self, zone: _Zone, job: _Job) -> None:
        """Send one update to the server that is most likely to accept it."""
        state, servers = job.state, zone.servers
        async with zone.updating:
            pair = servers.choose(time.monotonic(), self._ways, job.failed_s)
            change = state.change()
            if pair is None:
                for server in servers.config.servers:
                    self._set_status(zone, job, server, "failing", _NO_WAY)
                state.failed(time.monotonic(), 1)
                return
            server, way = pair
            where = (way, server, zone.name, job.name, change.ttl)
            try:
                reply = await self._requests.update(*where, add=change.add, remove=change.remove)
            except asyncio.CancelledError:
                state.outcome_unknown(time.monotonic())
                raise
        now = time.monotonic()
        if reply.error:
            self._failed(now, zone, job, pair, reply.error)
            return
        servers.responds(pair)
        job.failed_s.pop(pair, None)
        job.refused.discard(server)
        job.accepted_by = server
        state.accepted(now, change)
        self.counts.record("update", server.address, failed=False)
        self._set_status(zone, job, server, "pending", "accepted")

    def _failed(self, now: float, zone: _Zone, job: _Job, pair: Pair, error: str) -> None:
        server, _ = pair
        self.counts.record("update", server.address, failed=True)
        job.failed_s[pair] = now
        if error.startswith((f"{server.address} refuses: ", f"{job.name} is a CNAME")):
            job.refused.add(server)
        else:  # it may have received it
            job.state.outcome_unknown(now)
            if error.startswith(server.address):
                zone.servers.silent(now, pair)
        self._set_status(zone, job, server, "failing", _without_address(server, error))
        job.state.failed(now, len(zone.servers.config.servers))

    async def _check(self, zone: _Zone, job: _Job) -> None:
        """Query the name from each of the zone's servers."""
        state, servers, updated = job.state, zone.servers, job.accepted_by
        if updated and (ways := usable_ways(updated, self._ways)):
            await servers.query_ns(time.monotonic(), updated, ways[0])
        reachable = dict(servers.reachable(self._ways))
        for server in job.statuses.keys() - reachable.keys() - set(servers.config.servers):
            del job.statuses[server]
        answers = await asyncio.gather(
            *(self._query(zone, job, server, ways) for server, ways in reachable.items())
        )
        seen = dict(zip(reachable, answers, strict=True))
        all_fit = all(
            a is not None and not differences(a, state.wanted, state.ours) for a in answers
        )
        answer = seen.get(updated) if updated else None
        if undone := state.observed(time.monotonic(), answer, all_fit=all_fit):
            removed, added = sorted(undone & state.wanted), sorted(undone - state.wanted)
            parts = [f"{address} had been removed" for address in removed]
            parts += [f"{address} had been added again" for address in added]
            where = f"{zone.name} at {updated.address}" if updated else zone.name
            self._event_log.note("dns", f"dns.update {where}: {job.name}: {', '.join(parts)}")

    async def _query(
        self, zone: _Zone, job: _Job, server: Endpoint, ways: Sequence[Way]
    ) -> tuple[str, ...] | None:
        """The addresses of a name at a server; None if it doesn't answer."""
        status = job.statuses.setdefault(server, _Status(time.monotonic()))
        way = ways[status.misses % len(ways)]
        seen: list[str] = []
        async with zone.checking:
            for kind in _TYPES:
                reply = await self._requests.query(way, server, job.name, kind)
                if reply.error:
                    status.misses += 1
                    if status.misses >= _MISSES:
                        detail = _without_address(server, reply.error)
                        self._set_status(zone, job, server, "failing", detail)
                    return None
                seen += reply.texts
            serial = await self._requests.query(way, server, zone.name, "SOA")
        status.misses, status.seen = 0, tuple(sorted(seen))
        if server not in job.refused:
            bad = differences(seen, job.state.wanted, job.state.ours)
            detail = f"serial {serial.texts[0]}" if serial.texts else serial.error
            self._set_status(zone, job, server, "pending" if bad else "current", detail)
        return status.seen

    # --- status ---------------------------------------------------------------------------

    def _set_status(
        self, zone: _Zone, job: _Job, server: Endpoint, state: PublisherState, detail: str
    ) -> None:
        """Also logs when a server begins or ceases to fail, for any of the zone's names."""
        status = job.statuses[server]
        if status.state != state:
            status.state, status.since_s = state, time.monotonic()
        status.detail = detail
        states = {
            other.statuses[server].state for other in zone.jobs.values() if server in other.statuses
        }
        where = f"dns.update {zone.name} at {server.address}"
        if "failing" in states and server not in zone.failing:
            zone.failing.add(server)
            self._event_log.note("dns", f"{where}: failing ({detail})", severity="warning")
        elif states == {"current"} and server in zone.failing:
            zone.failing.remove(server)
            self._event_log.note("dns", f"{where}: current again")

    # --- the addresses that may be there of ours --------------------------------------------

    def _remembered(self) -> Memory:
        if self._memory is None:
            self._memory = self._store.read(UPDATES) or {}
        return self._memory

    def _save(self) -> None:
        before = self._remembered()
        fresh = {zone: dict(names) for zone, names in before.items()}
        for zone in self._zones.values():
            names = fresh.setdefault(zone.name, {})
            names |= {job.name: tuple(sorted(job.state.ours)) for job in zone.jobs.values()}
            fresh[zone.name] = {name: ours for name, ours in names.items() if ours}
        fresh = {zone: names for zone, names in fresh.items() if names}
        if fresh != before:
            self._store.write(UPDATES, fresh)
            self._memory = fresh


def _without_address(server: Endpoint, error: str) -> str:
    """An error without the server's address, which is shown next to it."""
    address = server.address
    return error.removeprefix(f"{address} refuses: ").removeprefix(f"{address}: ")

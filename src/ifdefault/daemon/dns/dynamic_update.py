"""Names published by dynamic update (RFC 2136) in zones that others' servers hold.

    published ──> course of each name ── UPDATE ──> first server that takes it
                        ^                               │ zone transfer
                        └── A, AAAA, SOA ── every server of the zone ──> standings

Rules: an Outlet. What may be there of ours is on disk before it is sent, and is forgotten when its
removal is certain. One task a name: one that fails holds up no other. Static records are for the
embedded server alone and are not published here. The RRset's TTL is that which was added last,
also by another host that shares the name: only a change of our own is said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.zone_servers import Pair, ZoneServers
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.requests import Requests
from ifdefault.daemon.status import OutletState, OutletStatus
from ifdefault.dns.publish import names_in_zone
from ifdefault.dns.update import UpdateState, differences, usable_ways
from ifdefault.host.store import Store
from ifdefault.ipc import fields
from ifdefault.ipc.messages import Asked
from ifdefault.model.dns import Endpoint, Published, UpdateConfig
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.health import Way

UPDATES = "updates.json"
_UPDATING, _LOOKING = 8, 16  # of a zone at once
_MISSES = 2  # one lost packet tells nothing
_TYPES: tuple[Asked, ...] = ("A", "AAAA")
_NO_WAY = "no uplink that works leads to it"
Memory = dict[str, dict[str, list[str]]]  # zone, name, addresses


@dataclass(slots=True)
class _Mark:
    """How a server stands to a name."""

    since_s: float
    state: OutletState = "pending"
    detail: str = ""
    seen: tuple[str, ...] = ()
    misses: int = 0


@dataclass(slots=True)
class _Job:
    name: str
    course: UpdateState
    marks: dict[Endpoint, _Mark] = field(default_factory=dict)
    failed_s: dict[Pair, float] = field(default_factory=dict)
    refused: set[Endpoint] = field(default_factory=set)  # those whose last word that was
    taker: Endpoint | None = None
    task: asyncio.Task[None] | None = None


class _Zone:
    def __init__(self, config: UpdateConfig, exchanges: Requests) -> None:
        self.name = config.zone
        self.servers = ZoneServers(config, exchanges)
        self.jobs: dict[str, _Job] = {}
        self.failing: set[Endpoint] = set()  # as was told
        self.updating, self.looking = asyncio.Semaphore(_UPDATING), asyncio.Semaphore(_LOOKING)


class Updates:
    def __init__(self, exchanges: Requests, store: Store, event_log: EventLog) -> None:
        self._exchanges, self._store, self._event_log = exchanges, store, event_log
        self._zones: dict[str, _Zone] = {}
        self._ways: tuple[Way, ...] = ()
        self._told: object = None
        self._memory: Memory | None = None  # as on disk; those of other zones stay
        self._unsaved = ""
        self._ending: set[asyncio.Task[None]] = set()

    # --- an outlet ------------------------------------------------------------------------

    def take(self, now: float, publish: Publish) -> None:
        config, published = publish.config, publish.published
        told = (config.dns.updates, published, publish.ways)
        if told == self._told or not (config.dns.updates or self._zones):
            return
        self._told = told
        moved, self._ways = self._ways != told[2], told[2]
        wanted = {update.zone: update for update in config.dns.updates}
        for name in self._zones.keys() - wanted.keys():
            for job in self._zones.pop(name).jobs.values():
                self._end(job)
        changed: list[tuple[_Zone, _Job]] = []
        for update in config.dns.updates:
            its = names_in_zone(config.dns, published, update.zone)
            zone = self._zones.setdefault(update.zone, _Zone(update, self._exchanges))
            anew = zone.servers.config != update
            if anew:
                zone.servers = ZoneServers(update, self._exchanges)
                zone.failing.clear()
            elif moved:
                zone.servers.other_ways()
            changed += self._want(now, zone, its, anew=anew, moved=moved)
        self._save()
        for zone, job in changed:
            self._start(now, zone, job)

    def frontend_started(self) -> None:
        now = time.monotonic()
        for zone in self._zones.values():
            for job in list(zone.jobs.values()):
                if job.course.retry(now):
                    self._start(now, zone, job)

    def frontend_ended(self) -> None:
        """What was asked with it ends with an error, and is tried again."""

    def standings(self) -> Iterator[OutletStatus]:
        for zone in self._zones.values():
            for job in zone.jobs.values():
                for server, mark in job.marks.items():
                    where = (server.address, zone.name, job.name)
                    yield OutletStatus(
                        "update", *where, mark.state, mark.since_s, mark.detail, mark.seen
                    )

    def hosts(self) -> tuple[str, ...]:
        """Name servers whose addresses the resolver is to find."""
        return tuple(host for zone in self._zones.values() for host in zone.servers.unknown)

    def resolved(self, host: str, addresses: tuple[str, ...], error: str) -> None:
        """What the resolver found."""
        for zone in self._zones.values():
            zone.servers.resolved(host, addresses)

    async def close(self) -> None:
        for zone in self._zones.values():
            for job in zone.jobs.values():
                self._end(job)
        self._zones.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)

    # --- what is to be said ---------------------------------------------------------------

    def _want(
        self, now: float, zone: _Zone, published: Sequence[Published], *, anew: bool, moved: bool
    ) -> Iterator[tuple[_Zone, _Job]]:
        """The names whose tasks are to start anew."""
        remembered = self._remembered().get(zone.name, {})
        names = {each.name: each for each in published}
        for name in sorted(names.keys() | remembered.keys() | zone.jobs.keys()):
            each, job = names.get(name), zone.jobs.get(name)
            addresses = [handed.address for handed in each.addresses] if each else []
            if each and not addresses and job is None:
                continue  # nothing is known yet: what is there may stay
            if job is None:
                job = zone.jobs[name] = _Job(name, UpdateState(remembered.get(name, ())))
                if job.course.ours:  # an earlier engine may have been killed in between
                    job.course.outcome_unknown(now)
            if addresses or not each:
                begun = job.course.want(now, addresses, each.ttl if each else 1)
            else:
                begun = False
            if begun or ((anew or moved) and job.course.retry(now, anyway=anew)):
                if anew:
                    job.marks.clear()
                yield zone, job

    def _start(self, now: float, zone: _Zone, job: _Job) -> None:
        self._end(job)
        job.failed_s.clear()
        for server in zone.servers.config.servers:
            mark = job.marks.setdefault(server, _Mark(now))
            if mark.state == "current":
                self._mark(zone, job, server, "pending", "")
        job.task = asyncio.create_task(self._keep(zone, job))
        job.task.add_done_callback(_tell_fault)

    def _end(self, job: _Job) -> None:
        if job.task is not None and not job.task.done():
            job.task.cancel()
            self._ending.add(job.task)
            job.task.add_done_callback(self._ending.discard)

    # --- one name -------------------------------------------------------------------------

    async def _keep(self, zone: _Zone, job: _Job) -> None:
        course = job.course
        while not course.is_done:
            wake_s, ours = min(course.due_s, course.look_s), course.ours
            await asyncio.sleep(max(0.0, wake_s - time.monotonic()))
            if course.due_s <= course.look_s:
                await self._say(zone, job)
            else:
                await self._look(zone, job)
            if course.ours != ours:
                self._save()
        zone.jobs.pop(job.name, None)

    async def _say(self, zone: _Zone, job: _Job) -> None:
        course, servers = job.course, zone.servers
        async with zone.updating:
            pair = servers.choose(time.monotonic(), self._ways, job.failed_s)
            change = course.change()
            if pair is None:
                for server in servers.config.servers:
                    self._mark(zone, job, server, "failing", _NO_WAY)
                course.failed(time.monotonic(), 1)
                return
            server, way = pair
            where = (way, server, zone.name, job.name, change.ttl)
            try:
                told = await self._exchanges.update(*where, add=change.add, remove=change.remove)
            except asyncio.CancelledError:
                course.outcome_unknown(time.monotonic())
                raise
        now = time.monotonic()
        if told.error:
            self._failed(now, zone, job, pair, told.error)
            return
        servers.speaks(pair)
        job.failed_s.pop(pair, None)
        job.refused.discard(server)
        job.taker = server
        course.accepted(now, change)
        self._mark(zone, job, server, "pending", "taken")

    def _failed(self, now: float, zone: _Zone, job: _Job, pair: Pair, error: str) -> None:
        server, _ = pair
        job.failed_s[pair] = now
        if error.startswith((f"{server.address} refuses: ", f"{job.name} is a CNAME")):
            job.refused.add(server)
        else:  # it may have got it
            job.course.outcome_unknown(now)
            if error.startswith(server.address):
                zone.servers.silent(now, pair)
        self._mark(zone, job, server, "failing", _words(server, error))
        job.course.failed(now, len(zone.servers.config.servers))

    async def _look(self, zone: _Zone, job: _Job) -> None:
        """See what each of the zone's servers says."""
        course, servers, taker = job.course, zone.servers, job.taker
        if taker and (ways := usable_ways(taker, self._ways)):
            await servers.find(time.monotonic(), taker, ways[0])
        places = dict(servers.places(self._ways))
        for server in job.marks.keys() - places.keys() - set(servers.config.servers):
            del job.marks[server]
        found = await asyncio.gather(*(self._see(zone, job, *place) for place in places.items()))
        seen = dict(zip(places, found, strict=True))
        all_fit = all(
            its is not None and not differences(its, course.wanted, course.ours) for its in found
        )
        theirs = seen.get(taker) if taker else None
        if back := course.observed(time.monotonic(), theirs, all_fit=all_fit):
            gone, more = sorted(back & course.wanted), sorted(back - course.wanted)
            parts = [f"{address} was gone" for address in gone]
            parts += [f"{address} was back" for address in more]
            where = f"{zone.name} at {taker.address}" if taker else zone.name
            self._event_log.note("dns", f"dns.update {where}: {job.name}: {', '.join(parts)}")

    async def _see(
        self, zone: _Zone, job: _Job, server: Endpoint, ways: Sequence[Way]
    ) -> tuple[str, ...] | None:
        """The addresses of a name at a server; None if it doesn't say."""
        mark = job.marks.setdefault(server, _Mark(time.monotonic()))
        way = ways[mark.misses % len(ways)]
        seen: list[str] = []
        async with zone.looking:
            for wanted in _TYPES:
                told = await self._exchanges.query(way, server, job.name, wanted)
                if told.error:
                    mark.misses += 1
                    if mark.misses >= _MISSES:
                        self._mark(zone, job, server, "failing", _words(server, told.error))
                    return None
                seen += told.texts
            serial = await self._exchanges.query(way, server, zone.name, "SOA")
        mark.misses, mark.seen = 0, tuple(sorted(seen))
        if server not in job.refused:
            bad = differences(seen, job.course.wanted, job.course.ours)
            detail = f"serial {serial.texts[0]}" if serial.texts else serial.error
            self._mark(zone, job, server, "pending" if bad else "current", detail)
        return mark.seen

    # --- told -----------------------------------------------------------------------------

    def _mark(
        self, zone: _Zone, job: _Job, server: Endpoint, state: OutletState, detail: str
    ) -> None:
        mark = job.marks[server]
        if mark.state != state:
            mark.state, mark.since_s = state, time.monotonic()
        mark.detail = detail
        states = {
            other.marks[server].state for other in zone.jobs.values() if server in other.marks
        }
        where = f"dns.update {zone.name} at {server.address}"
        if "failing" in states and server not in zone.failing:
            zone.failing.add(server)
            self._event_log.note("dns", f"{where}: failing ({detail})", level=logging.WARNING)
        elif states == {"current"} and server in zone.failing:
            zone.failing.remove(server)
            self._event_log.note("dns", f"{where}: current again")

    # --- what is ours ---------------------------------------------------------------------

    def _remembered(self) -> Memory:
        if self._memory is None:
            try:
                self._memory = _parse(self._store.read(UPDATES) or {})
            except (IfdefaultError, AttributeError, TypeError, ValueError) as error:
                self._event_log.note(
                    "dns", f"{UPDATES} is passed over: {error}", level=logging.WARNING
                )
                self._memory = {}
        return self._memory

    def _save(self) -> None:
        """Put on disk what may be there of ours."""
        before = self._remembered()
        fresh = {zone: dict(names) for zone, names in before.items()}
        for zone in self._zones.values():
            its = fresh.setdefault(zone.name, {})
            its |= {job.name: sorted(job.course.ours) for job in zone.jobs.values()}
            fresh[zone.name] = {name: ours for name, ours in its.items() if ours}
        fresh = {zone: names for zone, names in fresh.items() if names}
        if fresh == before:
            return
        try:
            self._store.write(UPDATES, fresh)
            self._memory, self._unsaved = fresh, ""
        except IfdefaultError as error:  # better to tell the truth now than to be sure to later
            if self._unsaved != str(error):
                self._unsaved = str(error)
                self._event_log.note("dns", f"dns.update: {error}", level=logging.ERROR)


def _tell_fault(task: asyncio.Task[None]) -> None:
    """A fault of our own is the engine's to know."""
    if not task.cancelled() and (error := task.exception()):
        context = {"message": "an update failed by our own fault", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


def _words(server: Endpoint, error: str) -> str:
    """A server's words, where it stands beside them who it is."""
    address = server.address
    return error.removeprefix(f"{address} refuses: ").removeprefix(f"{address}: ")


def _parse(told: Any) -> Memory:
    return {
        str(zone): {
            str(name): [fields.address(each) for each in ours] for name, ours in its.items()
        }
        for zone, its in told.items()
    }

"""Names published by programs: a provider's API (a process of ours), or whatever the operator has.

    published ──> job (a place and a name) ──> at most RUNNING programs at once ──> standings

Rules: nothing waits for a program. It is always told the whole state of its name, so that those of
one name run one after another, and of what changes meanwhile only the latest is run. What failed is
tried again, later each time. What may be there of ours is on disk before a program runs, so that
whatever ends us, it is withdrawn at last. A family's last address is never withdrawn.

A program is told in its environment: IFDEFAULT_EVENT "publish", IFDEFAULT_NAME, _ZONE, _TTL; the
addresses that are to be there, IFDEFAULT_A and _AAAA, and those of ours that may be there and are
to go, IFDEFAULT_WAS_A and _WAS_AAAA, with spaces between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process import spawn
from ifdefault.daemon.process.runner import Order, Runs, stripped
from ifdefault.daemon.status import OutletState, OutletStatus
from ifdefault.dns.publish import names_in_zone
from ifdefault.host.store import Store
from ifdefault.ipc import privileges
from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config
from ifdefault.model.dns import ExecConfig, ProviderConfig, Published, within
from ifdefault.model.errors import HostError, Problem, reason

PROGRAMS = "programs.json"
RUNNING = 4
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
_RECORD = {4: "A", 6: "AAAA"}
_log = logging.getLogger("ifdefault")


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """A name at a place."""

    kind: Literal["provider", "exec"]
    where: str  # dns-lexicon's name of the provider, or the program
    zone: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} by {self.where}"


@dataclass(frozen=True, slots=True)
class State:
    """What is to be said of a name."""

    ttl: int = 0
    addresses: tuple[str, ...] = ()  # sorted


@dataclass(slots=True)
class Job:
    """`said` is what the place was told last with success, `ours` all of ours that may be there.
    Since a program was started that didn't succeed, it isn't `sure` what is."""

    said: State = State()
    ours: tuple[str, ...] = ()
    sure: bool = False
    wanted: State = State()
    outlet: ProviderConfig | ExecConfig | None = None  # None: not configured (any more)
    problem: str = ""
    detail: str = ""
    since_s: float = 0.0
    wait_s: float = 0.0
    due_s: float = 0.0  # when it may run

    @property
    def state(self) -> OutletState:
        if self.problem:
            return "failing"
        return "current" if self.sure and self.wanted == self.said else "pending"

    @property
    def waits(self) -> bool:
        """Whether there is something to be run."""
        return self.outlet is not None and bool(self.wanted.addresses) and self.state != "current"


class Programs:
    """An Outlet, see `daemon.dns.publisher`."""

    def __init__(self, event_log: EventLog, store: Store, log: logging.Logger = _log) -> None:
        self._event_log, self._store = event_log, store
        self._loop = asyncio.get_running_loop()
        self._runs = Runs(RUNNING, log)
        self._timer: asyncio.TimerHandle | None = None
        self._config: Config | None = None
        self._users: dict[str, tuple[int, int]] = {}
        self._jobs = self._load()

    # --- the outlet -----------------------------------------------------------------------

    def take(self, now: float, publish: Publish) -> None:
        """Run what has something new to tell."""
        config, published = publish.config, publish.published
        if config is not self._config:
            self._adopt(now, config)
        ttls = {name.name: name.ttl for name in config.dns.names}
        known = set()
        for key, outlet, each in _wanted(config, published):
            known.add(key)
            job = self._jobs.setdefault(key, Job(since_s=now))
            # a provider's records keep the TTL that they were made with
            ttl = ttls[each.name] if key.kind == "provider" else each.ttl
            state = State(ttl, _addresses(each, job.said))
            if state != job.wanted:
                job.wanted, job.since_s, job.wait_s, job.due_s = state, now, 0.0, now
            job.outlet = outlet
        for key in self._jobs.keys() - known:
            self._jobs[key].outlet = None
        self._start()

    def frontend_started(self) -> None:
        """Nothing of this is the frontend's."""

    def frontend_ended(self) -> None:
        """Likewise."""

    def standings(self) -> Iterable[OutletStatus]:
        for key, job in sorted(self._jobs.items(), key=lambda item: item[0]):
            if job.outlet is None:
                continue
            detail = job.detail if job.wanted.addresses else "no address is known yet"
            place = (key.kind, key.where, key.zone, key.name)
            yield OutletStatus(*place, job.state, job.since_s, detail)

    async def close(self) -> None:
        """End what runs; the next engine runs it again."""
        self._jobs = {}
        self._start()
        await self._runs.close()

    # --- running --------------------------------------------------------------------------

    def _adopt(self, now: float, config: Config) -> None:
        """Take in another config; what failed may work from now on."""
        self._config = config
        for job in self._jobs.values():
            job.wait_s, job.due_s = 0.0, now
        for kind, name in (("provider", config.daemon.user), ("exec", config.daemon.hook_user)):
            uid, gid, warning = privileges.choose_user(name)
            self._users[kind] = privileges.possible(uid, gid)
            if warning and kind == "exec" and config.dns.execs:
                text = str(Problem("daemon.hook_user", warning))
                self._event_log.note("dns", text, level=logging.WARNING)

    def _start(self) -> None:
        """Run what is due, and come back when more is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        waiting = sorted(
            (job.due_s, key)
            for key, job in self._jobs.items()
            if job.waits and key not in self._runs
        )
        for due_s, key in waiting:
            if self._runs.full:
                return  # the next that ends comes back here
            if due_s > now:
                self._timer = self._loop.call_at(due_s, self._start)
                return
            self._run(key, self._jobs[key])

    def _run(self, key: Key, job: Job) -> None:
        assert job.outlet is not None
        state, known = job.wanted, (job.sure, job.ours)
        job.sure, job.ours = False, tuple(sorted({*job.ours, *state.addresses}))
        if (job.sure, job.ours) != known:
            self._save()
        order = Order(
            key,
            f"{key.kind} {key}",
            self._command(job.outlet),
            _told(key, job.outlet, state, job.ours),
            job.outlet.timeout_s,
        )
        try:
            self._runs.start(order, partial(self._ended, key, state))
        except OSError as error:
            self._note(key, job, f"can't be run: {reason(error)}", "")
            self._loop.call_soon(self._start)  # to come back when it is due again

    def _command(self, outlet: ProviderConfig | ExecConfig) -> tuple[str, ...]:
        if isinstance(outlet, ExecConfig):
            return stripped(self._users["exec"], outlet.program)
        return tuple(spawn.python("ifdefault.frontend.provider_main", *self._users["provider"]))

    def _ended(self, key: Key, state: State, problem: str, last_words: str) -> None:
        if job := self._jobs.get(key):
            if not problem:
                job.said, job.ours, job.sure = state, state.addresses, True
                self._save()
            self._note(key, job, problem, last_words)
        self._start()

    def _note(self, key: Key, job: Job, problem: str, last_words: str) -> None:
        """Take in how it ended; tell it if that is news."""
        detail = ": ".join(filter(None, (problem, last_words)))
        if problem:
            job.wait_s = min(max(2 * job.wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
            job.due_s = self._loop.time() + job.wait_s
            if detail != job.detail:
                self._event_log.note("dns", f"{key} fails: {detail}", level=logging.WARNING)
        else:
            job.wait_s = 0.0
            if job.problem:
                self._event_log.note("dns", f"{key} works again")
        if not problem or not job.problem:
            job.since_s = self._loop.time()
        job.problem, job.detail = problem, detail

    # --- what is kept ---------------------------------------------------------------------

    def _load(self) -> dict[Key, Job]:
        try:
            return dict(map(_job, self._store.read(PROGRAMS) or ()))
        except (HostError, AttributeError, KeyError, TypeError, ValueError) as error:
            path = self._store.directory / PROGRAMS
            text = f"{path} is passed over, old addresses may stay in the DNS: {error}"
            self._event_log.note("dns", text, level=logging.WARNING)
            return {}

    def _save(self) -> None:
        content = [
            {
                "key": [key.kind, key.where, key.zone, key.name],
                "said": [job.said.ttl, job.said.addresses],
                "ours": job.ours,
                "sure": job.sure,
            }
            for key, job in sorted(self._jobs.items(), key=lambda item: item[0])
        ]
        try:
            self._store.write(PROGRAMS, content, durable=False)
        except HostError as error:
            self._event_log.note("dns", str(error), level=logging.WARNING)


def _job(told: dict[str, Any]) -> tuple[Key, Job]:
    ttl, addresses = told["said"]
    return Key(*told["key"]), Job(State(ttl, tuple(addresses)), tuple(told["ours"]), told["sure"])


def _wanted(
    config: Config, published: Sequence[Published]
) -> Iterator[tuple[Key, ProviderConfig | ExecConfig, Published]]:
    for provider in config.dns.providers:
        for each in names_in_zone(config.dns, published, provider.zone):
            yield Key("provider", provider.provider, provider.zone, each.name), provider, each
    for program in config.dns.execs:
        for each in published:
            if program.zone and not within(each.name, program.zone):
                continue
            yield Key("exec", program.program, program.zone, each.name), program, each


def _addresses(published: Published, said: State) -> tuple[str, ...]:
    """What is to be there; of a family in which nothing is known (yet), what was there last."""
    told = {handed.address for handed in published.addresses}
    for family in FAMILIES:
        if not any(family_of(address) == family for address in told):
            told |= {address for address in said.addresses if family_of(address) == family}
    return tuple(sorted(told))


def _told(
    key: Key, outlet: ProviderConfig | ExecConfig, state: State, ours: tuple[str, ...]
) -> dict[str, str]:
    told = {"EVENT": "publish", "NAME": key.name, "ZONE": key.zone, "TTL": str(state.ttl)}
    if isinstance(outlet, ProviderConfig):
        told |= {"PROVIDER": outlet.provider, "CREDENTIALS": outlet.credentials}
    old = [address for address in ours if address not in state.addresses]
    for family, record in _RECORD.items():
        for name, addresses in ((record, state.addresses), (f"WAS_{record}", old)):
            told[name] = " ".join(a for a in addresses if family_of(a) == family)
    return {f"IFDEFAULT_{name}": value for name, value in told.items()}

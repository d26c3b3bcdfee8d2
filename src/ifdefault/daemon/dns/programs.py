"""Publishes names by programs: a provider's API (our own provider helper), or the operator's
executable.

    published ──> job (a program and a name) ──> at most RUNNING programs at once ──> statuses

Rules: the engine never waits for a program. A program always gets the complete state of its name;
runs for one name are sequential, and skip states that have been superseded. A failed run is
repeated, with increasing delay. Addresses that we may have published are on disk before a program
runs, so that they are withdrawn in the end, even after a crash. The last address of a family is
never withdrawn.

A program's environment: IFDEFAULT_EVENT "publish", IFDEFAULT_NAME, _ZONE, _TTL; the addresses to
publish, IFDEFAULT_A and _AAAA; and our own earlier addresses to remove, IFDEFAULT_WAS_A and
_WAS_AAAA; lists are separated by spaces.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.update_counts import UpdateCounts
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.runner import Runner, RunRequest, stripped
from ifdefault.dns.publish import names_in_zone
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.ipc import fields, privileges
from ifdefault.ipc.child import python
from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config
from ifdefault.model.dns import ExecConfig, ProviderConfig, Published, within
from ifdefault.model.errors import Problem, reason
from ifdefault.model.report import PublisherState, PublisherStatus

RUNNING = 4
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
_RECORD = {4: "A", 6: "AAAA"}
_log = logging.getLogger("ifdefault")


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """A name and the program that publishes it."""

    kind: Literal["provider", "exec"]
    where: str  # dns-lexicon's name of the provider, or the program
    zone: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} by {self.where}"


Addresses = tuple[Annotated[str, fields.address], ...]


@dataclass(frozen=True, slots=True)
class State:
    """What to publish of a name."""

    ttl: int = 0
    addresses: Addresses = ()  # sorted


@dataclass(slots=True)
class Job:
    """`published`: the state of the last successful run. `ours`: all addresses of ours that may be
    in the DNS. `certain`: the last run succeeded, so `published` is what is there."""

    published: State = State()
    ours: tuple[str, ...] = ()
    certain: bool = False
    desired: State = State()
    config: ProviderConfig | ExecConfig | None = None  # None: not configured (any more)
    problem: str = ""
    detail: str = ""
    since_s: float = 0.0
    wait_s: float = 0.0
    due_s: float = 0.0  # when it may run

    @property
    def state(self) -> PublisherState:
        if self.problem:
            return "failing"
        return "current" if self.certain and self.desired == self.published else "pending"

    @property
    def waits(self) -> bool:
        """Whether the program has to run."""
        return self.config is not None and bool(self.desired.addresses) and self.state != "current"


@dataclass(frozen=True, slots=True)
class _SavedJob:
    key: Key
    published: State
    ours: Addresses
    certain: bool


PROGRAMS: StateFile[tuple[_SavedJob, ...]] = StateFile(
    "programs.json", tuple[_SavedJob, ...], "old addresses may remain in the DNS"
)


class Programs:
    """A Publisher, see `daemon.dns.publisher`."""

    def __init__(self, event_log: EventLog, store: Store, log: logging.Logger = _log) -> None:
        self._event_log, self._store = event_log, store
        self.counts = UpdateCounts()
        self._loop = asyncio.get_running_loop()
        self._runner = Runner(RUNNING, log)
        self._timer: asyncio.TimerHandle | None = None
        self._config: Config | None = None
        self._users: dict[str, tuple[int, int]] = {}
        self._jobs = self._load()

    # --- the publisher --------------------------------------------------------------------

    def publish(self, now: float, publish: Publish) -> None:
        """Run the programs whose names have changed."""
        config, published = publish.config, publish.published
        if config is not self._config:
            self._use_config(now, config)
        ttls = {name.name: name.ttl for name in config.dns.names}
        configured = set()
        for key, program, name in _configured(config, published):
            configured.add(key)
            job = self._jobs.setdefault(key, Job(since_s=now))
            # a provider's records keep the TTL that they were created with
            ttl = ttls[name.name] if key.kind == "provider" else name.ttl
            state = State(ttl, _addresses(name, job.published))
            if state != job.desired:
                job.desired, job.since_s, job.wait_s, job.due_s = state, now, 0.0, now
            job.config = program
        for key in self._jobs.keys() - configured:
            self._jobs[key].config = None
        self._start()

    def frontend_started(self) -> None:
        """Programs don't need the frontend."""

    def frontend_ended(self) -> None:
        """Programs don't need the frontend."""

    def statuses(self) -> Iterable[PublisherStatus]:
        for key, job in sorted(self._jobs.items(), key=lambda item: item[0]):
            if job.config is None:
                continue
            detail = job.detail if job.desired.addresses else "no address is known yet"
            where = (key.kind, key.where, key.zone, key.name)
            yield PublisherStatus(*where, job.state, job.since_s, detail)

    async def close(self) -> None:
        """End the running programs; the next engine runs them again."""
        self._jobs = {}
        self._start()
        await self._runner.close()

    # --- running --------------------------------------------------------------------------

    def _use_config(self, now: float, config: Config) -> None:
        """Use another config; programs that failed are run again at once."""
        self._config = config
        for job in self._jobs.values():
            job.wait_s, job.due_s = 0.0, now
        for kind, name in (("provider", config.daemon.user), ("exec", config.daemon.hook_user)):
            uid, gid, warning = privileges.choose_user(name)
            self._users[kind] = privileges.possible(uid, gid)
            if warning and kind == "exec" and config.dns.execs:
                text = str(Problem("daemon.hook_user", warning))
                self._event_log.note("dns", text, severity="warning")

    def _start(self) -> None:
        """Run the programs that are due, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        waiting = sorted(
            (job.due_s, key)
            for key, job in self._jobs.items()
            if job.waits and key not in self._runner
        )
        for due_s, key in waiting:
            if self._runner.full:
                return  # called again when one ends
            if due_s > now:
                self._timer = self._loop.call_at(due_s, self._start)
                return
            self._run(key, self._jobs[key])

    def _run(self, key: Key, job: Job) -> None:
        assert job.config is not None
        state, before = job.desired, (job.certain, job.ours)
        job.certain, job.ours = False, tuple(sorted({*job.ours, *state.addresses}))
        if (job.certain, job.ours) != before:
            self._save()
        request = RunRequest(
            key,
            f"{key.kind} {key}",
            self._command(job.config),
            _environment(key, job.config, state, job.ours),
            job.config.timeout_s,
        )
        try:
            self._runner.start(request, partial(self._ended, key, state))
        except OSError as error:
            self._record(key, job, f"can't be run: {reason(error)}", "")
            self._loop.call_soon(self._start)  # sets the timer for the retry

    def _command(self, config: ProviderConfig | ExecConfig) -> tuple[str, ...]:
        if isinstance(config, ExecConfig):
            return stripped(self._users["exec"], config.program)
        return tuple(python("ifdefault.frontend.provider_main", *self._users["provider"]))

    def _ended(self, key: Key, state: State, problem: str, last_line: str) -> None:
        if job := self._jobs.get(key):
            if not problem:
                job.published, job.ours, job.certain = state, state.addresses, True
                self._save()
            self._record(key, job, problem, last_line)
        self._start()

    def _record(self, key: Key, job: Job, problem: str, last_line: str) -> None:
        """Record how a run ended, and log changes."""
        detail = ": ".join(filter(None, (problem, last_line)))
        self.counts.record(key.kind, key.where, failed=bool(problem))
        if problem:
            job.wait_s = min(max(2 * job.wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
            job.due_s = self._loop.time() + job.wait_s
            if detail != job.detail:
                self._event_log.note("dns", f"{key} fails: {detail}", severity="warning")
        else:
            job.wait_s = 0.0
            if job.problem:
                self._event_log.note("dns", f"{key} works again")
        if not problem or not job.problem:
            job.since_s = self._loop.time()
        job.problem, job.detail = problem, detail

    # --- saved state ----------------------------------------------------------------------

    def _load(self) -> dict[Key, Job]:
        saved = self._store.read(PROGRAMS) or ()
        return {job.key: Job(job.published, job.ours, job.certain) for job in saved}

    def _save(self) -> None:
        saved = (
            _SavedJob(key, job.published, job.ours, job.certain)
            for key, job in sorted(self._jobs.items(), key=lambda item: item[0])
        )
        self._store.write(PROGRAMS, tuple(saved))


def _configured(
    config: Config, published: Sequence[Published]
) -> Iterator[tuple[Key, ProviderConfig | ExecConfig, Published]]:
    """Each program with each name that it publishes."""
    for provider in config.dns.providers:
        for name in names_in_zone(config.dns, published, provider.zone):
            yield Key("provider", provider.provider, provider.zone, name.name), provider, name
    for program in config.dns.execs:
        for name in published:
            if program.zone and not within(name.name, program.zone):
                continue
            yield Key("exec", program.program, program.zone, name.name), program, name


def _addresses(name: Published, before: State) -> tuple[str, ...]:
    """The addresses to publish; in a family without any, those published before."""
    addresses = {record.address for record in name.addresses}
    for family in FAMILIES:
        if not any(family_of(address) == family for address in addresses):
            addresses |= {address for address in before.addresses if family_of(address) == family}
    return tuple(sorted(addresses))


def _environment(
    key: Key, config: ProviderConfig | ExecConfig, state: State, ours: tuple[str, ...]
) -> dict[str, str]:
    values = {"EVENT": "publish", "NAME": key.name, "ZONE": key.zone, "TTL": str(state.ttl)}
    if isinstance(config, ProviderConfig):
        values |= {"PROVIDER": config.provider, "CREDENTIALS": config.credentials}
    old = [address for address in ours if address not in state.addresses]
    for family, record in _RECORD.items():
        for name, addresses in ((record, state.addresses), (f"WAS_{record}", old)):
            values[name] = " ".join(a for a in addresses if family_of(a) == family)
    return {f"IFDEFAULT_{name}": value for name, value in values.items()}

"""The controller's state: what it decides from, and what it has decided.

Rules: one record that the controller's parts share; none of them keeps private state that affects
decisions. Effects are appended to `out`, in the order in which they are performed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from ifdefault.daemon.controller.effects import Effect, Log, RunHook
from ifdefault.daemon.controller.events import Started
from ifdefault.health.free_capacity import FreeCapacity
from ifdefault.model.changes import undone_in
from ifdefault.model.config import FAMILIES, Config, Family, Severity, UplinkConfig
from ifdefault.model.health import Decision, Forced, Transition
from ifdefault.model.kernel import Uplink
from ifdefault.model.report import DaemonStatus, Draining, Grace
from ifdefault.model.usage import Usage
from ifdefault.plan.prepare import Prepared

Key = tuple[str, Family]
_NO_CONFIG = Config(())


@dataclass(frozen=True, slots=True)
class Adoption:
    """A config to apply, completely or not at all. With `held`, which says why, nothing of it is
    installed and everything of ours is removed. `id`: of the request to answer, 0 if none."""

    why: Literal["start", "reload", "undo", "down"]
    config: Config
    id: int = 0
    confirm_s: int | None = None
    held: str = ""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The config to return to at `due_s`, unless the new one is confirmed before."""

    due_s: float
    config: Config
    held: str

    def text(self, now: float) -> str:
        """For the status."""
        return undone_in(self.due_s - now) if self.due_s < inf else ""

    def left_s(self, now: float) -> float:
        return max(0.0, self.due_s - now) if self.due_s < inf else 0.0

    def undoing(self) -> Unconfirmed:
        """The same while it is being undone: due again only if that fails."""
        return replace(self, due_s=inf)


@dataclass(slots=True)
class State:
    out: list[Effect] = field(default_factory=list)
    config: Config = _NO_CONFIG
    forced: dict[str, Forced] = field(default_factory=dict)
    drain_until_s: dict[str, float] = field(default_factory=dict)  # when to force it down
    prepared: Prepared | None = None  # the last plan, and the last observation
    decision: Decision | None = None
    held: str = ""  # why the kernel is not changed, "" if it is
    decision_due: bool = False  # something changed that decisions are made from
    unapplied: bool = False  # the kernel doesn't reflect the last decision or request yet
    conflicted: bool = False  # a repair waits, since another program keeps reverting it
    refused: tuple[str, ...] = ()  # what the kernel refused, for the status
    started_s: float = 0.0
    settled: bool = False  # the first probes after the start were answered, or had time to be
    settle_until_s: float = inf  # when it is settled
    frontend: bool = False  # one is running
    transitions: list[Transition] = field(default_factory=list)  # in this turn
    went_down: dict[Key, None] = field(default_factory=dict)  # paths whose connections may hang
    graces: dict[Key, float] = field(default_factory=dict)  # until when connections may go on
    # of an uplink, the better ones that got back the connections that are theirs
    returned: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    adoptions: deque[Adoption] = field(default_factory=deque)
    unconfirmed: Unconfirmed | None = None
    usage: tuple[Usage, ...] = ()  # of uplinks that have a budget or are metered
    minute: int | None = None  # of the day, in local time
    free_capacity: FreeCapacity = field(default_factory=FreeCapacity)
    repairs: int = 0  # operations so far that undid what others had changed
    refusals: int = 0  # operations so far that the kernel refused

    def start(self, now: float, started: Started) -> None:
        """Begin with what an earlier engine saved."""
        self.started_s, self.forced = now, dict(started.forced)
        self.config = started.config
        self.drain_until_s = {name: now + left_s for name, left_s in started.drains}
        self.returned = {(name, family): better for name, family, better in started.returned}
        self.adoptions.append(Adoption("start", started.config))

    @property
    def stands(self) -> bool:
        """Whether the kernel is as decided, so that new connections take the right uplink."""
        return not (self.held or self.unapplied or self.conflicted)

    @property
    def uplinks(self) -> tuple[Uplink, ...]:
        return self.prepared.uplinks if self.prepared else ()

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is configured, but not possible here, for the status."""
        return tuple(map(str, self.prepared.lacks)) if self.prepared else ()

    def status(self, now: float) -> DaemonStatus:
        """What of the status is known here."""
        undo = self.unconfirmed
        counted = {uplink.name for uplink in self.config.uplinks if uplink.is_counted}
        return DaemonStatus(
            pid=0,
            up_s=now - self.started_s,
            now_s=now,
            config="",
            decision=self.decision or Decision(),
            forced={name: forced for name, forced in self.forced.items() if forced != "auto"},
            drains=self.drains(),
            graces=tuple(Grace(*key, due_s) for key, due_s in sorted(self.graces.items())),
            held=self.held or (undo.text(now) if undo else ""),
            undone_in_s=undo.left_s(now) if undo else None,
            addresses=self.addresses(),
            usage=tuple(each for each in self.usage if each.uplink in counted),
            lines=self.free_capacity.loads(self.config.uplinks),
        )

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """For the status."""
        ready = (uplink for uplink in self.uplinks if uplink.sources and not uplink.pending)
        return {up.name: tuple(address for _, address in up.sources) for up in ready}

    def force(self, name: str, forced: Forced) -> None:
        self.forced[name] = forced
        self.drain_until_s.pop(name, None)
        self.decision_due = True
        if forced == "down":
            self.went_down |= {(name, family): None for family in FAMILIES}

    def is_spent(self, uplink: UplinkConfig) -> bool:
        """Whether its budget is used up."""
        used = (each.used_bytes for each in self.usage if each.uplink == uplink.name)
        return 0 < uplink.budget_bytes <= next(used, 0)

    def forced_state(self, uplink: UplinkConfig) -> Forced:
        """As the operator forced it; without that, down once a budget is used up that says so."""
        forced = self.forced.get(uplink.name, "auto")
        is_down = forced == "auto" and uplink.on_budget == "down" and self.is_spent(uplink)
        return "down" if is_down else forced

    def forced_states(self, config: Config) -> dict[str, Forced]:
        return {uplink.name: self.forced_state(uplink) for uplink in config.uplinks}

    def drains(self) -> tuple[Draining, ...]:
        """For the status."""
        names = sorted(name for name, forced in self.forced.items() if forced == "drain")
        until = self.drain_until_s
        return tuple(Draining(n, until[n] if until.get(n, inf) < inf else None) for n in names)

    def report(self, change: Transition) -> None:
        """Log a path's transition, and run its hook."""
        self.log("path", str(change), change.uplink, change.severity)
        path = (change.uplink, change.family, change.was, change.state)
        self.out.append(RunHook(change.state, *path, change.cause))

    def log(self, kind: str, text: str, uplink: str = "", severity: Severity = "info") -> None:
        self.out.append(Log(kind, text, uplink, severity))

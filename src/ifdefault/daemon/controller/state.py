"""What the controller decides from, and what it has decided.

Rules: one record, which the parts of the controller share; nothing hidden in any of them changes
what is decided. Effects are appended to `out`, in the order in which they are to be performed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from ifdefault.daemon.controller.effects import Effect, Level, Log
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.health import Decision, Forced, Transition
from ifdefault.model.kernel import Uplink
from ifdefault.plan.prepare import Prepared

Key = tuple[str, Family]
_NO_CONFIG = Config(())


@dataclass(frozen=True, slots=True)
class Adoption:
    """A config that is to be taken in, whole or not at all; with `held`, which says why, nothing of
    it is laid, and all of ours goes. `id` is the request's that is answered, 0 if nobody asked."""

    why: Literal["start", "reload", "undo", "down"]
    config: Config
    id: int = 0
    confirm_s: int | None = None
    held: str = ""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """What is brought back at `due_s`, unless somebody confirms what came after it."""

    due_s: float
    config: Config
    held: str

    def told(self, now: float) -> str:
        """For people."""
        return f"undone in {self.due_s - now:.0f} s unless confirmed" if self.due_s < inf else ""

    def begun(self) -> Unconfirmed:
        """It is being undone: not due again before that has failed."""
        return replace(self, due_s=inf)


@dataclass(slots=True)
class State:
    out: list[Effect] = field(default_factory=list)
    config: Config = _NO_CONFIG
    forced: dict[str, Forced] = field(default_factory=dict)
    prepared: Prepared | None = None  # as planned last; its observation is the last that was made
    decision: Decision | None = None
    held: str = ""  # why nothing is changed
    undecided: bool = False  # whether anything changed that is decided from
    owed: bool = False  # a decision, or an order, that the kernel doesn't follow yet
    fought: bool = False  # whether the kernel is for now as another program wants it
    refused: tuple[str, ...] = ()  # what the kernel won't have, for people
    started_s: float = 0.0
    settled: bool = False  # whether probes have been answered, if anybody does
    settling_s: float = inf  # until when the first answers come in any order
    frontend: bool = False  # whether one is there
    transitions: list[Transition] = field(default_factory=list)  # of this turn
    fallen: dict[Key, None] = field(default_factory=dict)  # may have left connections hanging
    adoptions: deque[Adoption] = field(default_factory=deque)
    unconfirmed: Unconfirmed | None = None

    @property
    def uplinks(self) -> tuple[Uplink, ...]:
        return self.prepared.uplinks if self.prepared else ()

    def force(self, name: str, forced: Forced) -> None:
        self.forced[name] = forced
        self.undecided = True
        if forced == "down":
            self.fallen |= {(name, family): None for family in FAMILIES}

    def log(self, kind: str, text: str, uplink: str = "", level: Level = "info") -> None:
        self.out.append(Log(kind, text, uplink, level))

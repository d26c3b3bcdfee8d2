"""A host at one time: what was observed of it, and what is remembered.

Rules: all that planning reads is in an Observation, so that a plan can be made again from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ifdefault.model.errors import Problem
from ifdefault.model.kernel import Facts, Loaded


@dataclass(frozen=True, slots=True)
class State:
    """What must be remembered of a host (state.json). `sysctls` and `groups` map a name to its
    original, then to the values of ours that the kernel may hold: one, or more while a change is
    under way or was killed. `forced` is what the operator wants of an uplink, whatever is observed.
    `runs` maps the control group of a command to the uplink that it keeps to (`ifdefault exec`)."""

    numbers: dict[str, int] = field(default_factory=dict)
    sysctls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    forced: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """All that planning reads: the kernel, and what we remember of this host.

    `groups` are the control groups that have rules, with their ids, 0 where there is none;
    `no_balance` says why there can be no hook on connect(), "" if there can be; `others` are
    problems that others' configuration makes, where they were looked for."""

    facts: Facts
    state: State = field(default_factory=State)
    loaded: Loaded = ()
    groups: tuple[tuple[str, int], ...] = ()
    no_balance: str = ""
    others: tuple[Problem, ...] = ()

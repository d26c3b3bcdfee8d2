"""The observed state of the host, and the state that is saved.

Rules: an Observation has all inputs of planning except the config, so that a plan can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ifdefault.model.config import Family
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Answers
from ifdefault.model.kernel import Facts, Loaded


@dataclass(frozen=True, slots=True)
class State:
    """The saved state (state.json). `sysctls`, `groups` and
    `limits` (of MPTCP) map a name to its original value,
    followed by the values of ours that the kernel may have: one, or more while a change is in
    progress or was interrupted; `links` are the indexes of the interfaces in them. `forced` is the
    state of an uplink as set by the operator. `runs` maps the cgroup of a command to its uplink
    (`ifdefault exec`)."""

    numbers: dict[str, int] = field(default_factory=dict)
    sysctls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    forced: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    limits: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """All inputs of planning except the config: the kernel, and the saved state.

    `groups` are the cgroups that have rules, with their ids, 0 if they don't exist; `no_balance` is
    why the programs on connect() aren't possible, "" if they are; `others` are problems with other
    programs' configuration, if they were looked for; `answers` are the kernel's to the questions of
    the self-check; `public` are the addresses that uplinks were discovered to have outside, if they
    are announced."""

    facts: Facts
    state: State = field(default_factory=State)
    loaded: Loaded = ()
    groups: tuple[tuple[str, int], ...] = ()
    no_balance: str = ""
    others: tuple[Problem, ...] = ()
    answers: Answers = ()
    public: tuple[tuple[str, Family, str], ...] = ()

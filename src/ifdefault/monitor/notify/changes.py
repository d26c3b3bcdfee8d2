"""What an event says, for those that the engine writes in one form: changes of a path's state, and
of the primary uplink.

Rules: pure. The texts are those of `model.health.Transition` and of the controller's decision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ifdefault.model.report import Event

_PATH = re.compile(r"(\S+) IPv([46]): ([a-z]+) -> ([a-z]+)(?: \((.*)\))?")
_PRIMARY = re.compile(r"primary IPv([46]): (\S+) -> (\S+)")
FAULTS = ("degraded", "down")  # states of a path, the worst last


@dataclass(frozen=True, slots=True)
class PathChange:
    uplink: str
    family: str  # "4" or "6"
    state: str
    cause: str


@dataclass(frozen=True, slots=True)
class PrimaryChange:
    family: str
    was: str
    uplink: str


def path_change(event: Event) -> PathChange | None:
    if event.kind != "path" or not (match := _PATH.fullmatch(event.text)):
        return None
    uplink, family, _, state, cause = match.groups()
    return PathChange(uplink, family, state, cause or "")


def primary_change(event: Event) -> PrimaryChange | None:
    if event.kind != "primary" or not (match := _PRIMARY.fullmatch(event.text)):
        return None
    family, was, uplink = match.groups()
    return PrimaryChange(family, was, uplink)

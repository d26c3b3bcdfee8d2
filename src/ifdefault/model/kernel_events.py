"""Kernel notifications that are relevant to ifdefault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A link was added, deleted, or changed (its state, name, group or MAC)."""

    name: str
    index: int
    up: bool = False  # administratively
    carrier: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class NeighbourChanged:
    """A neighbour changed. `reachable` False: it doesn't answer (NUD_FAILED); None: deleted."""

    dev: str
    address: str
    reachable: bool | None
    mac: str = ""


@dataclass(frozen=True, slots=True)
class ObjectChanged:
    """An object was added, changed or deleted. `ours`: it has our protocol number or name, whoever
    changed it."""

    kind: Literal["address", "route", "rule", "nexthop", "nft"]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Overrun:
    """Notifications were lost: everything must be read again."""


KernelChange = LinkChanged | NeighbourChanged | ObjectChanged | Overrun

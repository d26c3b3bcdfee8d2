"""What the kernel tells of its changes, as they concern us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A link came, went, or changed in a way that matters (also its name, group or MAC)."""

    name: str
    index: int
    up: bool = False  # administratively
    carrier: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class NeighbourChanged:
    """`reachable` False: it doesn't answer (NUD_FAILED); None: the kernel has forgotten it."""

    dev: str
    address: str
    reachable: bool | None
    mac: str = ""


@dataclass(frozen=True, slots=True)
class ObjectChanged:
    """Something of a kind was added, changed or deleted; `ours`: it bears our number or name,
    whoever did it."""

    kind: Literal["address", "route", "rule", "nexthop", "nft"]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Overrun:
    """Events were lost: all must be read again."""


KernelChange = LinkChanged | NeighbourChanged | ObjectChanged | Overrun

"""A reader of a document: his host, and the world around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ifdefault.lab.topology import Topology
from ifdefault.lab.world import World


def nothing(_: World) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reader:
    """What he has before he begins."""

    topology: str | Topology = "two"
    releases: tuple[str, ...] = ("bookworm",)
    installed: bool = True  # ifdefault
    files: dict[str, str] = field(default_factory=dict)
    around: Callable[[World], None] = nothing  # what runs beside the host
    before: str = ""  # what was done on the host

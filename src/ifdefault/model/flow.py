"""A packet as the kernel's route lookup sees it, and where the lookup sends it."""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.config import Family


@dataclass(frozen=True, slots=True)
class Flow:
    """What a lookup selects by. `iif` "": sent by this host; `src` "": not bound."""

    family: Family
    dst: str
    src: str = ""
    iif: str = ""
    oif: str = ""
    mark: int = 0
    ip_proto: int = 0
    sport: int = 0
    dport: int = 0
    uid: int = 0


@dataclass(frozen=True, slots=True)
class RouteReply:
    """The result of a lookup. `kind`: unicast, local, blackhole, unreachable, prohibit, or the
    kernel's error text. Only a unicast result has a device."""

    kind: str
    dev: str = ""
    gateway: str = ""
    table: int = 0
    source: str = ""

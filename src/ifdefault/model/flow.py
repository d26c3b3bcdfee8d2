"""A packet as a route lookup sees it, where the lookup sends it, and where it is meant to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.model.config import Family

Intent = Literal["input", "own", "reply", "outgoing", "balanced", "forwarded"]


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


@dataclass(frozen=True, slots=True)
class Question:
    """A packet, and where it is meant to go: to `dev`, or to this host if that is "".

    `table`: the table that must route it, 0 for any: a multipath route may lead to the right device
    by chance. `others`: for outgoing connections, the uplinks' devices; any other is a VPN's."""

    intent: Intent
    uplink: str
    flow: Flow
    dev: str = ""
    gateway: str = ""
    table: int = 0
    others: tuple[str, ...] = ()

    def is_met(self, reply: RouteReply) -> bool:
        if not self.dev:
            return reply.kind == "local"
        if reply.kind != "unicast":
            return False
        if self.others and reply.dev not in self.others:
            return True
        is_there = (reply.dev, reply.gateway) == (self.dev, self.gateway)
        return is_there and self.table in (0, reply.table)


Answers = tuple[tuple[Question, RouteReply], ...]

"""The fake Internet: the uplinks, the quality of their lines, and the outcome of a probe.

    isp-a  wan0  ── line IPv4 ── gateway ── beyond          what is dead, lossy or slow is known
                 └─ line IPv6 ── gateway ── beyond          here, and held against what is decided

Rules: a probe goes where the kernel's rules and routes send it; its outcome depends on the line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from random import Random

from ifdefault.model.config import Family
from ifdefault.model.health import Verdict
from ifdefault.model.kernel import TABLE_MAIN, Address, Hop, Route
from tests.simulation.kernel import Way

DEADLY = ("black hole", "gateway dead")
TEACHING = ("loss", "burst", "delay")  # faults that the loss model learns
RTT_S, SLOW_RTT_S = 0.02, 0.25
SHORT_S = 1.3  # a shorter outage counts as a burst of loss


@dataclass
class Line:
    """An uplink in one family, beyond the host. `bad_s`: until when it was bad last, inf while it
    is; `misled_s`: when a probe went astray, be it for what others did; `taught`: it has been bad
    in a way that the daemon gives it more time for."""

    uplink: str
    family: Family
    kind: str = "healthy"
    loss: float = 0.0
    since_s: float = 0.0
    bad_s: float = -inf
    misled_s: float = -inf
    taught: bool = False
    answered_s: float = -inf  # when a probe of it was answered last
    deaths: int = 0

    def become(self, now: float, kind: str, loss: float = 0.0) -> None:
        if self.kind != "healthy":
            self.bad_s = now
        if kind != "healthy":
            self.bad_s = inf
        self.deaths += kind in DEADLY and self.kind not in DEADLY
        short = self.kind in DEADLY and now - self.since_s < SHORT_S
        self.taught |= kind in TEACHING or short
        if kind != self.kind:
            self.kind, self.since_s = kind, now
        self.loss = loss

    @property
    def dead(self) -> bool:
        return self.kind in DEADLY


@dataclass
class Uplink:
    """`there`, `up`, `carrier`: the link as it is. `moved_s`: when the link or an address changed
    last, inf while it is incomplete."""

    name: str
    number: int
    families: tuple[Family, ...]
    learned: bool  # its gateways are main's defaults, else the config names them
    there: bool = True
    up: bool = True
    carrier: bool = True
    index: int = 0
    moved_s: float = -inf
    generation: int = 0  # of its numbers
    lines: dict[Family, Line] = field(default_factory=dict)
    renumbers: bool = False  # while it does

    def __post_init__(self) -> None:
        self.index = 10 + self.number
        self.lines = {family: Line(self.name, family) for family in self.families}

    @property
    def dev(self) -> str:
        return f"wan{self.number}"

    @property
    def linked(self) -> bool:
        return self.there and self.up and self.carrier

    def _host(self, family: Family, host: int) -> str:
        net = self.number * 8 + self.generation % 8
        if family == 6:
            return f"2001:db8:{net + 1:x}::{host:x}"
        return f"{'203.0.113' if net < 16 else '198.51.100'}.{net % 16 * 16 + host}"

    def address(self, family: Family) -> str:
        return self._host(family, 10)

    def gateway(self, family: Family) -> str:
        return self._host(family, 1)

    def own(self, family: Family) -> Address:
        return Address(family, self.dev, self.address(family), 28 if family == 4 else 64)

    def prefix(self, family: Family) -> str:
        net = self._host(family, 0)
        return f"{net}/28" if family == 4 else f"{net.removesuffix('::0')}::/64"

    def default(self, family: Family) -> Route:
        metric = 100 * self.number + (1024 if family == 6 else 0)
        hops = (Hop(self.dev, self.gateway(family)),)
        return Route(family, TABLE_MAIN, "default", metric, hops=hops, protocol=16)

    def way(self, family: Family) -> Way:
        return self.dev, self.gateway(family)

    def dead(self, family: Family) -> bool:
        return not self.linked or self.lines[family].dead

    def fine(self, now: float, family: Family) -> bool:
        """It works, and has been working for a while."""
        line = self.lines[family]
        healthy = line.kind == "healthy" and line.since_s < now - 1.0
        return self.linked and healthy and self.moved_s < now - 1.0


@dataclass(frozen=True)
class Fate:
    """The outcomes of a probe, and after how many seconds; a late answer follows its loss."""

    verdict: Verdict
    after_s: float = 0.0
    late_s: float = inf


def fate(
    uplink: Uplink, family: Family, way: Way | None, address: str, timeout_s: float, rng: Random
) -> Fate:
    """The outcome of a probe that leaves by this uplink."""
    if way is None:
        return Fate("local")
    line, gateway = uplink.lines[family], uplink.gateway(family)
    lost = Fate("lost", timeout_s)
    if not uplink.linked or way[1] not in ("", gateway):
        return lost
    if line.kind == "gateway dead" or (way[1] != gateway and address != gateway):
        return lost
    beyond = address != gateway
    if beyond and line.kind in ("black hole", "burst"):
        return lost
    if line.kind == "loss" and rng.random() < line.loss:
        return lost
    rtt_s = SLOW_RTT_S if line.kind == "delay" and beyond else RTT_S
    rtt_s *= 1 + rng.random() / 10
    return Fate("lost", timeout_s, rtt_s) if rtt_s > timeout_s else Fate("answered", rtt_s)

"""What faults of the host may cost in a record of `chaos`: their kinds and periods. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Kinds of host faults. "absent": there is no engine, or it doesn't run, until the fault is over.
HOST_FAULTS = {
    "restart": "absent",
    "kill -9": "absent",
    "upgrade": "absent",
    "freeze": "absent",
    "flush": "storm",
    "route storm": "storm",
    "link storm": "storm",
    "address storm": "storm",
    "rule storm": "storm",
    "hostile user": "storm",
}


@dataclass(frozen=True, slots=True)
class HostPeriod:
    """A fault of the host; one of the engine ends when it answers again."""

    kind: str
    begin_s: float
    end_s: float

    @property
    def absent(self) -> bool:
        return HOST_FAULTS[self.kind] == "absent"

    def overlaps(self, from_s: float, to_s: float) -> bool:
        return self.begin_s < to_s and self.end_s > from_s


@dataclass(frozen=True, slots=True)
class Resources:
    """What the daemon's processes use at a time. `log_bytes`: written since it began."""

    at_s: float
    rss_mib: dict[str, float]  # by process
    log_bytes: int

    @property
    def total_mib(self) -> float:
        return sum(self.rss_mib.values())


def absence(periods: Iterable[HostPeriod], from_s: float, to_s: float) -> HostPeriod | None:
    """The last one that overlaps a span of time."""
    found = [it for it in periods if it.absent and it.overlaps(from_s, to_s)]
    return max(found, key=lambda it: it.end_s, default=None)


def storm(periods: Iterable[HostPeriod], from_s: float, to_s: float) -> HostPeriod | None:
    """One that overlaps a span of time."""
    return next((it for it in periods if not it.absent and it.overlaps(from_s, to_s)), None)

"""What uplinks have carried in their providers' months: as saved, and as reported.

Rules: as in `model.kernel`. Bytes are those of in and out together.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.config import OnBudget

LOW = 0.8  # a budget of which so much is used is low


@dataclass(frozen=True, slots=True)
class Slice:
    """What was carried in a piece of time of at most a day. It begins at `boot_s` of the clock that
    counts from the boot on; `offset_s`: of local time then."""

    boot_s: float
    offset_s: float
    bytes: int


@dataclass(frozen=True, slots=True)
class SavedCount:
    """The count of an uplink. `link`, `bytes_in`, `bytes_out`: as its counters were last. `days`:
    what was carried in earlier boots, by the number of the day (`model.month`); `slices`: in this
    one. `noted`: by the first day of a month, the level that an event has told of."""

    uplink: str
    interface: str
    link: int
    bytes_in: int
    bytes_out: int
    days: tuple[tuple[int, int], ...] = ()
    slices: tuple[Slice, ...] = ()
    noted: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SavedUsage:
    """`at_s` and `boot_s`: what time it was, in seconds since the epoch and since the boot. `boot`:
    which boot and network that was, "" if it isn't the present one."""

    at_s: float
    boot_s: float
    uplinks: tuple[SavedCount, ...] = ()
    boot: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an uplink has carried in this month of its provider, which begins on `since` and ends
    before `until`, dates in local time. `limit_bytes` 0: it has no budget."""

    uplink: str
    used_bytes: int
    limit_bytes: int
    since: str
    until: str
    on_budget: OnBudget = "warn"

    @property
    def used_up(self) -> bool:
        return 0 < self.limit_bytes <= self.used_bytes

    @property
    def is_low(self) -> bool:
        return self.limit_bytes > 0 and self.used_bytes >= LOW * self.limit_bytes

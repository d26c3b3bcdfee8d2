"""Counts what an uplink carries, by a clock that may be set at any time.

Rules: all bytes that the interface counts are counted once. Each belongs to the day on which it was
carried by the clock as it is now: what was counted since the boot moves when the clock is set. What
was counted before the boot stays where it was. A clock that is behind what an earlier boot saved is
believed only after DOUBT_S: until then time goes on from where that boot ended, since a host may
know the time only once it reaches a time server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import floor, inf

from ifdefault.model.health import LinkCounter
from ifdefault.model.month import DAY_S
from ifdefault.model.usage import SavedCount, SavedUsage, Slice

DOUBT_S = 3600.0
SET_S = 10.0  # a clock that is off by less isn't set
SLICE_S = 3600.0
FINE_S = 48 * 3600.0  # slices that are older are of up to a day
MOST_DAYS = 70  # more than two months
_MOST_NOTED = 4  # months


@dataclass(slots=True)
class LocalClock:
    """Local time, by wall clock and boot clock. `booted_s`: when the host was booted, in seconds
    since the epoch, as far as is known now."""

    booted_s: float = 0.0
    offset_s: float = 0.0
    boot_s: float = 0.0  # now
    _saved_s: float = -inf  # the time that an earlier engine saved
    _resumed_s: float = 0.0  # as `booted_s`, if time went on from there
    _began_s: float = inf  # the boot clock when this engine started

    def resume(self, saved: SavedUsage, boot_s: float) -> None:
        self._saved_s = saved.at_s
        self._resumed_s = saved.at_s - (saved.boot_s if saved.boot else boot_s)

    def tell(self, wall_s: float, local_s: float, boot_s: float) -> None:
        self.boot_s, self.offset_s = boot_s, local_s - wall_s
        self._began_s = min(self._began_s, boot_s)
        booted_s = wall_s - boot_s
        if wall_s < self._saved_s - SET_S and boot_s < self._began_s + DOUBT_S:
            booted_s = self._resumed_s
        if abs(booted_s - self.booted_s) > SET_S:
            self.booted_s = booted_s

    @property
    def at_s(self) -> float:
        return self.booted_s + self.boot_s

    def day(self, boot_s: float, offset_s: float) -> int:
        return floor((self.booted_s + boot_s + offset_s) / DAY_S)

    @property
    def today(self) -> int:
        return self.day(self.boot_s, self.offset_s)


@dataclass(slots=True)
class UsageCount:
    """What one uplink has carried."""

    interface: str = ""
    link: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    days: dict[int, int] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    noted: dict[int, int] = field(default_factory=dict)

    @classmethod
    def restored(cls, saved: SavedCount, usage: SavedUsage) -> UsageCount:
        """Go on from what an earlier engine saved."""
        last = saved.interface, saved.link, saved.bytes_in, saved.bytes_out
        count = cls(*last, dict(saved.days), list(saved.slices), dict(saved.noted))
        if not usage.boot:  # counters begin anew with a boot, and so does its clock
            count.link, count.slices = 0, []
            clock = LocalClock(usage.at_s - usage.boot_s)
            for each in saved.slices:
                day = clock.day(each.boot_s, each.offset_s)
                count.days[day] = count.days.get(day, 0) + each.bytes
            for day in sorted(count.days)[:-MOST_DAYS]:
                del count.days[day]
        return count

    def saved(self, uplink: str) -> SavedCount:
        return SavedCount(
            uplink,
            self.interface,
            self.link,
            self.bytes_in,
            self.bytes_out,
            tuple(sorted(self.days.items())),
            tuple(self.slices),
            tuple(sorted(self.noted.items())),
        )

    def add(self, clock: LocalClock, counter: LinkCounter, interface: str) -> None:
        """The counters as they are now. What an interface had carried before it became this
        uplink's isn't counted; what another one of its name did is."""
        before = self.interface, self.link, self.bytes_in, self.bytes_out
        self.interface, self.link = interface, counter.link
        self.bytes_in, self.bytes_out = counter.bytes_in, counter.bytes_out
        had_interface, had_link, had_in, had_out = before
        if interface != had_interface:
            return
        carried_in, carried_out = counter.bytes_in - had_in, counter.bytes_out - had_out
        if counter.link != had_link or carried_in < 0 or carried_out < 0:  # they began anew
            carried_in, carried_out = counter.bytes_in, counter.bytes_out
        if carried := carried_in + carried_out:
            self._carry(clock, carried)

    def _carry(self, clock: LocalClock, carried: int) -> None:
        now = Slice(clock.boot_s, clock.offset_s, carried)
        last = self.slices[-1] if self.slices else None
        if last and clock.boot_s < last.boot_s + SLICE_S and _same_day(clock, last, now):
            self.slices[-1] = replace(last, bytes=last.bytes + carried)
        else:
            self.slices = [*_merged(self.slices, clock), now]

    def used(self, since: int, until: int, clock: LocalClock) -> int:
        """Bytes from one day until another."""
        earlier = sum(count for day, count in self.days.items() if since <= day < until)
        slices = self.slices
        return earlier + sum(
            each.bytes for each in slices if since <= clock.day(each.boot_s, each.offset_s) < until
        )

    def note(self, month: int, level: int) -> None:
        """An event has told of this level in the month that begins on this day."""
        self.noted[month] = level
        for earlier in sorted(self.noted)[:-_MOST_NOTED]:
            del self.noted[earlier]


def _merged(slices: list[Slice], clock: LocalClock) -> Iterator[Slice]:
    """The same bytes, in one slice for each day that is long ago."""
    last: Slice | None = None
    for each in slices:
        if each.boot_s < clock.boot_s - MOST_DAYS * DAY_S:
            continue
        old = each.boot_s < clock.boot_s - FINE_S
        if last and old and _same_day(clock, last, each):
            last = replace(last, bytes=last.bytes + each.bytes)
            continue
        if last:
            yield last
        last = each
    if last:
        yield last


def _same_day(clock: LocalClock, one: Slice, other: Slice) -> bool:
    same_offset = one.offset_s == other.offset_s
    return same_offset and clock.day(one.boot_s, one.offset_s) == clock.day(
        other.boot_s, other.offset_s
    )


def is_within(hours: tuple[int, int], minute: int) -> bool:
    """Whether a minute of the day is within these hours, which may go over midnight."""
    begin, end = hours
    return begin <= minute < end if begin < end else minute >= begin or minute < end

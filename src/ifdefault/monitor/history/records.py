"""What the history consists of.

Rules: as in `model`. Times that end in `at`, `since` or `until` are seconds since the epoch. Counts
add up: an hour is the sum of its minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from ifdefault.model.config import Family
from ifdefault.model.health import PathState
from ifdefault.model.report import RTT_BUCKETS_S, Event

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
OUT = ("recovering", "down")  # while a path is in one of these, there is an outage


class Path(NamedTuple):
    uplink: str
    family: Family

    def __str__(self) -> str:
        return f"{self.uplink} IPv{self.family}"


def add_buckets(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip_longest(one, other, fillvalue=0))


@dataclass(frozen=True, slots=True)
class Tally:
    """What a path did within a time: probes, and how long it was in each state. The time in no
    state isn't known."""

    answered: int = 0
    lost: int = 0
    rtt_us: int = 0  # the sum of all answers
    rtt: tuple[int, ...] = ()  # answers, by RTT_BUCKETS_S
    up_ms: int = 0
    degraded_ms: int = 0
    recovering_ms: int = 0
    down_ms: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.answered + other.answered,
            self.lost + other.lost,
            self.rtt_us + other.rtt_us,
            add_buckets(self.rtt, other.rtt),
            self.up_ms + other.up_ms,
            self.degraded_ms + other.degraded_ms,
            self.recovering_ms + other.recovering_ms,
            self.down_ms + other.down_ms,
        )

    @property
    def known_ms(self) -> int:
        return self.up_ms + self.degraded_ms + self.recovering_ms + self.down_ms

    @property
    def availability(self) -> float | None:
        """The share of the known time in which the path could be used."""
        known = self.known_ms
        return (self.up_ms + self.degraded_ms) / known if known else None

    @property
    def loss_ratio(self) -> float | None:
        probes = self.answered + self.lost
        return self.lost / probes if probes else None

    def rtt_ms(self, share: float) -> float | None:
        """The round trip that this share of the answers didn't exceed: 0.5 is the median. It is
        interpolated within its bucket; of those beyond the last one, the bound of that is known."""
        rank, before = share * sum(self.rtt), 0
        for n, count in enumerate(self.rtt):
            if count and before + count >= rank:
                if n >= len(RTT_BUCKETS_S):
                    return RTT_BUCKETS_S[-1] * 1000
                low = RTT_BUCKETS_S[n - 1] if n else 0.0
                return (low + (RTT_BUCKETS_S[n] - low) * (rank - before) / count) * 1000
            before += count
        return None


def in_state(state: PathState, ms: int) -> Tally:
    match state:
        case "up":
            return Tally(up_ms=ms)
        case "degraded":
            return Tally(degraded_ms=ms)
        case "recovering":
            return Tally(recovering_ms=ms)
        case "down":
            return Tally(down_ms=ms)
        case "unproven":
            return Tally()


@dataclass(frozen=True, slots=True)
class Interval:
    """A path within the minute or hour that began at `at`."""

    at: int
    path: Path
    tally: Tally


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes over an uplink within the hour that began at `at`."""

    at: int
    uplink: str
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Span:
    """A path was in a state. `until` None: it still is. `id`: in the file, 0 before it is there."""

    path: Path
    state: PathState
    since: float
    until: float | None
    cause: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    """A path isn't in the config any more."""

    path: Path
    since: float


@dataclass(frozen=True, slots=True)
class Target:
    """Probes of one target over one path within a time."""

    path: Path
    probe: str
    answered: int
    lost: int


@dataclass(frozen=True, slots=True)
class Outage:
    """A path couldn't be used. `cause`: of its beginning. `until` None: it still can't be, or that
    isn't known since `seen`. `span`: the id of the first one."""

    path: Path
    since: float
    until: float | None
    cause: str
    span: int = 0

    def duration_s(self, now: float) -> float:
        return max((now if self.until is None else self.until) - self.since, 0.0)


@dataclass(slots=True)
class Batch:
    """What is to be written in one transaction."""

    events: list[Event] = field(default_factory=list)
    minutes: dict[tuple[int, Path], Tally] = field(default_factory=dict)
    traffic: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    spans: list[Span | Gone] = field(
        default_factory=list
    )  # as they began; each ends the one before
    targets: list[tuple[Path, tuple[Target, ...]]] = field(default_factory=list)  # of outages
    counters: Mapping[str, tuple[int, int]] | None = None  # bytes at the end, by uplink
    serial: int | None = None  # of the last event
    seen: float | None = None  # until when all this is known

    def __bool__(self) -> bool:
        return bool(self.events or self.minutes or self.traffic or self.spans)

    def add(self, at: int, path: Path, tally: Tally) -> None:
        key = at - at % MINUTE_S, path
        self.minutes[key] = self.minutes.get(key, Tally()) + tally

    def add_traffic(self, at: int, uplink: str, bytes_in: int, bytes_out: int) -> None:
        key = at - at % HOUR_S, uplink
        had_in, had_out = self.traffic.get(key, (0, 0))
        self.traffic[key] = had_in + bytes_in, had_out + bytes_out

    def followed_by(self, later: Batch, most: int) -> Batch:
        """Both in one; of minutes and events, the last so many."""
        for (at, path), tally in later.minutes.items():
            self.add(at, path, tally)
        for (at, uplink), (bytes_in, bytes_out) in later.traffic.items():
            self.add_traffic(at, uplink, bytes_in, bytes_out)
        for key in sorted(self.minutes)[:-most]:
            del self.minutes[key]
        return Batch(
            (self.events + later.events)[-most:],
            self.minutes,
            self.traffic,
            (self.spans + later.spans)[-most:],
            (self.targets + later.targets)[-most:],
            self.counters if later.counters is None else later.counters,
            self.serial if later.serial is None else later.serial,
            self.seen if later.seen is None else later.seen,
        )


def minutes_between(since: float, until: float) -> Iterator[tuple[int, int]]:
    """The minutes of a time, and how many milliseconds of it each has. They add up."""
    at, done_ms = since, 0
    while at < until:
        minute = int(at - at % MINUTE_S)
        end = min(minute + MINUTE_S, until)
        total_ms = round((end - since) * 1000)
        yield minute, total_ms - done_ms
        at, done_ms = end, total_ms

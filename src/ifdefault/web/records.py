"""What the API answers and takes beside the engine's own records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ifdefault.ipc.fields import TEXT_CHARS, number, printable_text
from ifdefault.model.config import Family
from ifdefault.model.health import LONGEST_DRAIN_S, Forced
from ifdefault.monitor.history.records import Interval, Outage, Traffic


class Schema:
    """In Annotated, beside a check: what that demands, in the words of JSON Schema."""

    def __init__(self, **words: int) -> None:
        self.words = words


@dataclass(frozen=True, slots=True)
class Problems:
    """Why a request wasn't fulfilled."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UplinkState:
    """`timeout_s`: drain it for this time, then force it down. `token`: the control token."""

    state: Forced
    timeout_s: (
        Annotated[int, number(1, LONGEST_DRAIN_S), Schema(minimum=1, maximum=LONGEST_DRAIN_S)]
        | None
    ) = None
    token: Annotated[str, printable_text, Schema(maxLength=TEXT_CHARS)] = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which uplink a packet or connection takes, and why, as `ifdefault explain --json` says it."""

    direction: str
    arrival: str
    uplink: str
    hop: str
    source: str
    rule: str
    route: str
    mechanism: str
    kernel: str
    agrees: bool
    astray: str
    remedy: str
    goes_to: str
    returns: str = ""
    mptcp: str = ""


@dataclass(frozen=True, slots=True)
class HistoryHour:
    """A path within the hour that began at `at`, seconds since the epoch. `rtt_ms`: the median.
    `availability`: the share of the known time in which it could be used."""

    at: int
    uplink: str
    family: Family
    answered: int
    lost: int
    loss_ratio: float | None
    rtt_ms: float | None
    availability: float | None


@dataclass(frozen=True, slots=True)
class TrafficHour:
    """Bytes over an uplink within the hour that began at `at`."""

    at: int
    uplink: str
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class HistoryReport:
    hours: tuple[HistoryHour, ...]
    traffic: tuple[TrafficHour, ...]


@dataclass(frozen=True, slots=True)
class PastOutage:
    """`id`: of its report, /outages/ID.txt. `until` null: it goes on."""

    id: int
    uplink: str
    family: Family
    since: float
    until: float | None
    cause: str


@dataclass(frozen=True, slots=True)
class OutageReport:
    outages: tuple[PastOutage, ...]


def history_hour(interval: Interval) -> HistoryHour:
    tally, path = interval.tally, interval.path
    return HistoryHour(
        interval.at,
        path.uplink,
        path.family,
        tally.answered,
        tally.lost,
        tally.loss_ratio,
        tally.rtt_ms(0.5),
        tally.availability,
    )


def traffic_hour(traffic: Traffic) -> TrafficHour:
    return TrafficHour(traffic.at, traffic.uplink, traffic.bytes_in, traffic.bytes_out)


def past_outage(outage: Outage) -> PastOutage:
    path = outage.path
    return PastOutage(
        outage.span, path.uplink, path.family, outage.since, outage.until, outage.cause
    )

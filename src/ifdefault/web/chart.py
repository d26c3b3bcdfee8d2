"""Loss and round trip time of an uplink over time, as the numbers of an SVG.

Rules: pure. Coordinates are rounded and bounded, so that a chart of a month is no larger than one
of an hour. Where nothing is known the line has a gap: no value is made up. What the chart shows is
also said in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.report_text import count
from ifdefault.monitor.history.records import Interval, Outage, Tally
from ifdefault.web.view import ago

WIDTH, HEIGHT, BASE = 600, 100, 78  # of the view box; the round trip times are above BASE
POINTS = 150  # at most
SpanName = Literal["hour", "day", "month"]
SPANS: dict[SpanName, int] = {"hour": 3600, "day": 86400, "month": 30 * 86400}
_FORMS: dict[SpanName, str] = {"hour": "%H:%M", "day": "%H:%M", "month": "%d %b"}
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Line:
    family: Family
    d: str  # of a path; SVG 2, 9.3


@dataclass(frozen=True, slots=True)
class Band:
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Chart:
    id: str
    title: str
    summary: str
    top: str  # what the top of the round trip times is
    lines: tuple[Line, ...]
    loss: str
    outages: tuple[Band, ...]
    ticks: tuple[str, ...]
    width: int = WIDTH
    height: int = HEIGHT
    base: int = BASE


@dataclass(frozen=True, slots=True)
class _Axis:
    begin: float
    end: float

    def x(self, at: float) -> float:
        share = (at - self.begin) / (self.end - self.begin)
        return round(WIDTH * min(max(share, 0.0), 1.0), 1)


def chart(
    uplink: str,
    intervals: Sequence[Interval],
    outages: Iterable[Outage],
    span: SpanName,
    now: float,
) -> Chart | None:
    """`intervals`: minutes or hours of the uplink's paths; None if there are none."""
    axis = _Axis(now - SPANS[span], now)
    width_s = max(SPANS[span] / POINTS, 3600.0 if span == "month" else 60.0)
    columns = {family: _columns(intervals, family, axis, width_s) for family in FAMILIES}
    total: dict[Family, Tally] = {
        family: sum(found.values(), Tally()) for family, found in columns.items()
    }
    if not any(columns.values()):
        return None
    medians = [m for c in columns.values() for t in c.values() if (m := _rtt(t)) is not None]
    top = _round_up(max(medians, default=1.0))
    lines = tuple(
        Line(family, d)
        for family, found in columns.items()
        if (d := _line(found, axis, width_s, top))
    )
    times = _merged(outages, axis, now)
    bands = tuple(Band(axis.x(a), max(round(axis.x(b) - axis.x(a), 1), 1.0)) for a, b in times)
    return Chart(
        uplink,
        f"{uplink}: round trip time and loss over the last {span}",
        _summary(total, span, times),
        f"{top:g} ms",
        lines,
        _bars(columns, axis, width_s),
        bands,
        _ticks(axis, span),
    )


def _columns(
    intervals: Iterable[Interval], family: Family, axis: _Axis, width_s: float
) -> dict[int, Tally]:
    """The intervals of a family, added up to columns."""
    columns: dict[int, Tally] = {}
    for interval in intervals:
        if interval.path.family == family and axis.begin <= interval.at <= axis.end:
            column = int((interval.at - axis.begin) / width_s)
            columns[column] = columns.get(column, Tally()) + interval.tally
    return columns


def _rtt(tally: Tally) -> float | None:
    """The mean, which needs no buckets to be exact."""
    return tally.rtt_us / tally.answered / 1000 if tally.answered else None


def _line(columns: dict[int, Tally], axis: _Axis, width_s: float, top: float) -> str:
    steps: list[str] = []
    before = -2
    for column in sorted(columns):
        if (rtt := _rtt(columns[column])) is None:
            continue
        x = axis.x(axis.begin + (column + 0.5) * width_s)
        y = round(BASE - (BASE - 2) * min(rtt / top, 1.0), 1)
        # a single value is a line too short to see, with round ends
        steps.append(f"L{x} {y}" if column == before + 1 else f"M{x} {y}h.1")
        before = column
    return "".join(steps)


def _bars(columns: dict[Family, dict[int, Tally]], axis: _Axis, width_s: float) -> str:
    """A bar below the axis for each column with losses: of the family that lost more."""
    bars = []
    for column in sorted({column for found in columns.values() for column in found}):
        losses = [f[column].loss_ratio or 0.0 for f in columns.values() if column in f]
        if (loss := max(losses)) > 0:
            x = axis.x(axis.begin + column * width_s)
            wide = round(max(WIDTH * width_s / (axis.end - axis.begin) - 0.5, 0.5), 1)
            high = round(1.5 + (HEIGHT - BASE - 3.5) * loss, 1)
            bars.append(f"M{x} {BASE + 1.5}h{wide}v{high}h-{wide}z")
    return "".join(bars)


def _merged(outages: Iterable[Outage], axis: _Axis, now: float) -> list[tuple[float, float]]:
    """When any path was down: of both families, what overlaps is one time."""
    merged: list[tuple[float, float]] = []
    for outage in sorted(outages, key=lambda outage: outage.since):
        begin = max(outage.since, axis.begin)
        end = min(now if outage.until is None else outage.until, axis.end)
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif begin < end:
            merged.append((begin, end))
    return merged


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 0.1
    while power < 1e6:
        for factor in (1, 2, 5):
            if value <= factor * power:
                return round(factor * power, 1)
        power *= 10
    return value


def _ticks(axis: _Axis, span: SpanName) -> tuple[str, ...]:
    step = (axis.end - axis.begin) / (_TICKS - 1)
    times = (datetime.fromtimestamp(axis.begin + n * step, UTC).astimezone() for n in range(_TICKS))
    return tuple(time.strftime(_FORMS[span]) for time in times)


def _summary(
    total: dict[Family, Tally], span: SpanName, outages: Sequence[tuple[float, float]]
) -> str:
    parts = []
    for family, tally in total.items():
        if (loss := tally.loss_ratio) is not None:
            rtt = _rtt(tally)
            mean = f", {rtt:.1f} ms" if rtt is not None else ""
            parts.append(f"IPv{family} {100 * loss:.2g} % lost{mean}")
    down_s = sum(end - begin for begin, end in outages)
    parts.append(count(len(outages), "outage") + (f" of {ago(down_s)}" if outages else ""))
    return f"Last {span}: {'; '.join(parts)}"

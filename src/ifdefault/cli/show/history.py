"""What `ifdefault history` shows: read once, then shown as tables or as JSON.

Rules: local time; what isn't known isn't counted, and if it is much, its share is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ifdefault.cli.show.style import Line
from ifdefault.cli.show.table import table
from ifdefault.model.report_text import duration, size
from ifdefault.monitor.config import UplinkPart
from ifdefault.monitor.history.budget import RATE_DAYS, Budget, month_of
from ifdefault.monitor.history.budgets import budgets
from ifdefault.monitor.history.records import Interval, Outage, Path, Tally

if TYPE_CHECKING:
    from ifdefault.model.config import UplinkConfig
    from ifdefault.model.usage import Usage
    from ifdefault.monitor.history.reader import Reader

_CURRENT_S = 180.0  # the monitor writes once a minute
_KNOWN = 0.99  # if less of the time is known, it is shown


@dataclass(frozen=True, slots=True)
class Month:
    """A path in a month, as far as it lies in the time that was asked for. `known_ratio`: the share
    of this time that is known."""

    month: str
    path: Path
    tally: Tally
    outages: int
    known_ratio: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read. `seen`: until when the history knows anything."""

    since: float
    now: float
    seen: float
    outages: Sequence[Outage]
    months: Sequence[Month]
    budgets: Sequence[tuple[str, Budget]]


def read(
    reader: Reader,
    uplink: str,
    since: float,
    now: float,
    uplinks: Sequence[UplinkConfig],
    usage: Sequence[Usage] = (),
) -> Seen:
    """`usage`: what the engine has counted."""
    first = reader.first()
    since = max(since, first if first is not None else now)
    outages = reader.outages(since, now, uplink)
    months = [*_months(reader.hours(since, now, uplink), outages, since, now)]
    used = _budgets(reader, uplink, now, uplinks, usage)
    return Seen(since, now, reader.seen, outages, months, used)


def _months(
    hours: Sequence[Interval], outages: Sequence[Outage], since: float, now: float
) -> Iterator[Month]:
    sums: dict[tuple[str, Path], Tally] = {}
    for hour in hours:
        key = _month(hour.at), hour.path
        sums[key] = sums.get(key, Tally()) + hour.tally
    for (month, path), tally in sorted(sums.items(), key=lambda item: (item[0][1], item[0][0])):
        begun = [o for o in outages if o.path == path and _month(max(o.since, since)) == month]
        yield Month(month, path, tally, len(begun), _known(tally, month, since, now))


def _month(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m}"


def _known(tally: Tally, month: str, since: float, now: float) -> float:
    begin = datetime.fromisoformat(f"{month}-01").astimezone()
    _, end = month_of(begin, 1)
    asked_s = min(end.timestamp(), now) - max(begin.timestamp(), since)
    return min(tally.known_ms / 1000 / asked_s, 1.0) if asked_s > 0 else 1.0


def _budgets(
    reader: Reader,
    uplink: str,
    now: float,
    uplinks: Sequence[UplinkConfig],
    usage: Sequence[Usage],
) -> list[tuple[str, Budget]]:
    """Of the uplinks in the config, or if it can't be read, of those in the history."""
    recorded = [UplinkPart(name) for name in {path.uplink for path in reader.paths()}]
    known: Sequence[UplinkConfig | UplinkPart] = uplinks or recorded
    asked = [each for each in known if uplink in ("", each.name)]
    local = datetime.fromtimestamp(now).astimezone()
    found = budgets(reader, asked, local, usage).items()
    used = [item for item in found if item[1].used or item[1].limit]
    return sorted(used, key=lambda item: item[0])


def is_current(seen: Seen) -> bool:
    return seen.now - seen.seen < _CURRENT_S


# --- as text ------------------------------------------------------------------------------


def lines(seen: Seen) -> list[str]:
    sections = (outages(seen), _availability(seen), _traffic(seen))
    shown: list[str] = []
    for section in filter(None, sections):
        shown += ["", *section] if shown else section
    return shown


def outages(seen: Seen) -> list[str]:
    if not seen.outages:
        return [Line(f"no outage since {when(seen.since)}", "good")]
    rows = [
        (
            str(outage.span),
            str(outage.path),
            when(outage.since),
            _until(outage, seen),
            duration(outage.duration_s(seen.now if is_current(seen) else seen.seen)),
            outage.cause,
        )
        for outage in seen.outages
    ]
    return table(("Outage", "Uplink", "From", "Until", "Duration", "Cause"), rows)


def _until(outage: Outage, seen: Seen) -> str:
    if outage.until is None:
        return "down" if is_current(seen) else "unknown"
    same_day = when(outage.since)[:10] == when(outage.until)[:10]
    return when(outage.until)[11 if same_day else 0 :]


def when(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def _availability(seen: Seen) -> list[str]:
    if not seen.months:
        return []
    shows_known = any(month.known_ratio < _KNOWN for month in seen.months)
    known = ("Known",) if shows_known else ()
    heads = ("Uplink", "Month", "Available", *known, "Outages", "Down", "Loss", "RTT", "95 %")
    rows = [
        (
            str(month.path),
            month.month,
            percent(month.tally.availability, 3),
            *((percent(month.known_ratio, 0),) if shows_known else ()),
            str(month.outages),
            _short((month.tally.down_ms + month.tally.recovering_ms) / 1000),
            percent(month.tally.loss_ratio, 2),
            _ms(month.tally.rtt_ms(0.5)),
            _ms(month.tally.rtt_ms(0.95)),
        )
        for month in seen.months
    ]
    return table(heads, rows)


def percent(ratio: float | None, digits: int) -> str:
    """What isn't quite all isn't rounded up to it, nor what isn't quite nothing down."""
    if ratio is None:
        return "-"
    least = 10.0**-digits
    value = ratio * 100
    if 0 < value < least:
        return f"<{least:.{digits}f} %"
    if value < 100 and round(value, digits) == 100:
        value = 100 - least
    return f"{value:.{digits}f} %"


def _short(seconds: float) -> str:
    return duration(seconds) if seconds else "-"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _traffic(seen: Seen) -> list[str]:
    return [line for name, each in seen.budgets for line in budget_lines(name, each)]


def budget_lines(name: str, each: Budget) -> list[str]:
    """An uplink's traffic in words."""
    text = f"{name}: {size(each.used)}"
    if each.limit:
        text += f" of {size(each.limit)} ({each.used / each.limit * 100:.0f} %)"
    text += f" since {_day(each.since)}"
    if each.limit and each.used >= each.limit:
        return [Line(f"{text}: the budget is used up", "bad")]
    if each.forecast is None:
        return [text]
    end = _day(each.until)
    text += f"; at the rate of the last {RATE_DAYS} days {size(each.forecast)} until {end}"
    if each.used_up is None:
        return [text]
    return [Line(f"{text}, and the budget is used up on {_day(each.used_up)}", "warn")]


def _day(day: datetime) -> str:
    return f"{day:%Y-%m-%d}"


# --- as JSON ------------------------------------------------------------------------------


def to_json(seen: Seen) -> dict[str, Any]:
    return {
        "since": seen.since,
        "until": seen.now,
        "seen": seen.seen,
        "outages": [
            {
                "outage": outage.span,
                "uplink": outage.path.uplink,
                "family": outage.path.family,
                "since": outage.since,
                "until": outage.until,
                "duration_s": outage.duration_s(seen.now),
                "cause": outage.cause,
            }
            for outage in seen.outages
        ],
        "months": [
            {
                "month": month.month,
                "uplink": month.path.uplink,
                "family": month.path.family,
                "availability": month.tally.availability,
                "known_ratio": month.known_ratio,
                "outages": month.outages,
                "down_s": (month.tally.down_ms + month.tally.recovering_ms) / 1000,
                "answered": month.tally.answered,
                "lost": month.tally.lost,
                "rtt_median_ms": month.tally.rtt_ms(0.5),
                "rtt_p95_ms": month.tally.rtt_ms(0.95),
            }
            for month in seen.months
        ],
        "traffic": [
            {
                "uplink": name,
                "since": each.since.timestamp(),
                "until": each.until.timestamp(),
                "bytes": each.used,
                "budget": each.limit or None,
                "forecast": each.forecast,
                "used_up": each.used_up.timestamp() if each.used_up else None,
            }
            for name, each in seen.budgets
        ],
    }

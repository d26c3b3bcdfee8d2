"""A month's traffic against its budget, with a forecast.

Rules: a month begins at midnight, local time; see `model.month`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from ifdefault.model import month
from ifdefault.monitor.history.records import Traffic

RATE_DAYS = 7  # the forecast is by the rate of this many days at most
_EPOCH = date(1970, 1, 1).toordinal()
_LEAST_S = 6 * 3600  # no forecast from less


@dataclass(frozen=True, slots=True)
class Budget:
    """`used`: bytes in this month so far. `forecast`: by its end at the present rate, None if too
    little is known. `used_up`: when the budget will be, at that rate, if it will be."""

    since: datetime
    until: datetime
    used: int
    limit: int  # 0: none
    forecast: int | None = None
    used_up: datetime | None = None


def month_of(now: datetime, reset_day: int) -> tuple[datetime, datetime]:
    """The month that the provider counts in: its beginning and its end."""
    begin, end = month.month_of(now.date().toordinal() - _EPOCH, reset_day)
    return _midnight(begin), _midnight(end)


def _midnight(day: int) -> datetime:
    """When a day begins, with the offset of then."""
    return datetime.fromordinal(day + _EPOCH).astimezone()


def budget(
    traffic: Iterable[Traffic],
    limit: int,
    reset_day: int,
    now: datetime,
    counted: int | None = None,
) -> Budget:
    """What an uplink has used of its budget. `traffic`: its hours, those of the last RATE_DAYS
    included even if they belong to the month before. `counted`: what the engine has counted of this
    month, if it counts, which is what it obeys."""
    since, until = month_of(now, reset_day)
    recent = now - timedelta(days=RATE_DAYS)
    begin_at, recent_at, now_at = since.timestamp(), recent.timestamp(), now.timestamp()
    used = lately = 0
    first_at = now_at
    for hour in traffic:
        total = hour.bytes_in + hour.bytes_out
        used += total if hour.at >= begin_at else 0
        if hour.at >= recent_at:
            lately += total
            first_at = min(first_at, hour.at)
    used = used if counted is None else counted
    known_s = now_at - first_at
    if known_s < _LEAST_S:
        return Budget(since, until, used, limit)
    per_s = lately / known_s
    forecast = used + round(per_s * max(until.timestamp() - now_at, 0.0))
    used_up = None
    if limit and used < limit < forecast:
        used_up = now + timedelta(seconds=(limit - used) / per_s)
    return Budget(since, until, used, limit, forecast, used_up)

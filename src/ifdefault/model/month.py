"""The months of providers, each from the day on which a provider begins to count anew.

Rules: local time, as a number of days since 1970-01-01; no clock, and no `datetime`, which has one.
Where a month doesn't have the day, it begins on its last one.
"""

from __future__ import annotations

from functools import lru_cache

DAY_S = 86_400.0
_EPOCH = 719_468  # days from 0000-03-01 to 1970-01-01
_ERA, _ERA_YEARS = 146_097, 400  # after so many days the Gregorian calendar repeats itself
_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


@lru_cache(maxsize=64)
def month_of(day: int, reset_day: int) -> tuple[int, int]:
    """The month that this day is in: its first day, and that of the next."""
    year, month, _ = civil(day)
    months = 12 * year + month - 1
    if (begin := _reset(months, reset_day)) > day:
        return _reset(months - 1, reset_day), begin
    return begin, _reset(months + 1, reset_day)


def _reset(months: int, reset_day: int) -> int:
    """The first day of the month that begins in a calendar month, counted from the year 0."""
    first, following = _first(months), _first(months + 1)
    return min(first + reset_day, following) - 1


def _first(months: int) -> int:
    """The first day of a calendar month. The year is taken to begin in March, so that leap days
    are its last ones (https://howardhinnant.github.io/date_algorithms.html)."""
    year, month = divmod(months - 2, 12)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 - _EPOCH


def civil(day: int) -> tuple[int, int, int]:
    """The year, month and day of the month of a day."""
    era, in_era = divmod(day + _EPOCH, _ERA)
    years = (in_era - in_era // 1460 + in_era // 36_524 - in_era // 146_096) // 365
    months = 12 * (era * _ERA_YEARS + years) + 2
    months += (5 * (day - _first(months)) + 2) // 153
    return months // 12, months % 12 + 1, day - _first(months) + 1


def day_text(day: int) -> str:
    """ "2026-12-01"."""
    year, month, of_month = civil(day)
    return f"{year:04}-{month:02}-{of_month:02}"


def day_name(text: str) -> str:
    """ "1 December" of "2026-12-01"."""
    _, month, of_month = text.split("-")
    return f"{int(of_month)} {_NAMES[int(month) - 1]}"

"""The beginning of a time on the command line: 7d, 12h, 2026-11-01, 2026-11-01T08:00."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

_UNITS = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60}
_AGO = re.compile(r"(\d{1,5})([wdhm])")


def since(_: click.Context, __: click.Parameter, text: str) -> float:
    """A callback: seconds since the epoch; dates are local time."""
    if match := _AGO.fullmatch(text):
        return max(time.time() - int(match[1]) * _UNITS[match[2]], 0.0)
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        use = "use 12h, 7d, 4w, or a date such as 2026-11-01"
        raise click.BadParameter(f'"{text}" is not a time; {use}') from None

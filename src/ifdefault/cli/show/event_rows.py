"""Events, one per row, as `top` shows them.

Rules: as in `dashboard`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ifdefault.cli.show.chart import Row
from ifdefault.cli.show.style import Style

if TYPE_CHECKING:
    from ifdefault.model.config import Severity
    from ifdefault.model.report import Event

SEVERITY_STYLES: dict[Severity, Style | None] = {"info": None, "warning": "warn", "error": "bad"}
_ROOMY = 80


def event_row(event: Event, columns: int) -> Row:
    """Its local time, with the date if that isn't today, and its text."""
    at = datetime.fromtimestamp(event.at).astimezone()
    today = at.date() == datetime.now().astimezone().date()
    when = (
        f"{at:%H:%M:%S}" if today else f"{at:%b %d %H:%M}" if columns >= _ROOMY else f"{at:%b %d}"
    )
    row = Row().add(when, "note", 12 if columns >= _ROOMY else 8).add("  ")
    if columns >= _ROOMY:
        row.add(event.kind, None, 10).add("  ")
    return row.add(event.text, SEVERITY_STYLES[event.severity])


def matches(event: Event, text: str, severity: Severity) -> bool:
    """Whether it has the text, in any case, and is at least so severe."""
    from ifdefault.model.config import SEVERITIES

    least = SEVERITIES.index(severity)
    where = f"{event.kind} {event.uplink} {event.text}".casefold()
    return text.casefold() in where and SEVERITIES.index(event.severity) >= least

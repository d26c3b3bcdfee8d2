"""Outages from the spans of paths.

Rules: as in `model`. An outage lasts while its path is down or recovering: a recovering path isn't
used. It ends where nothing is known any more. Each path is looked at alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from ifdefault.monitor.history.records import OUT, Outage, Span

_SAME_S = 1.0


def outages(spans: Iterable[Span]) -> list[Outage]:
    """The outages in spans, the oldest first."""
    ordered = sorted(spans, key=lambda span: (span.path, span.since))
    found = [outage for _, each in groupby(ordered, lambda s: s.path) for outage in _of_path(each)]
    return sorted(found, key=lambda outage: (outage.since, outage.path))


def follows(until: float | None, span: Span) -> bool:
    """Whether a span begins where another one ended, with nothing unknown between."""
    return until is None or span.since <= until + _SAME_S


def _of_path(spans: Iterable[Span]) -> Iterator[Outage]:
    current: Outage | None = None
    for span in spans:
        if current is not None and not follows(current.until, span):
            yield current
            current = None
        if span.state not in OUT:
            if current is not None:
                yield current
            current = None
        elif current is None:
            if span.state == "down":
                current = Outage(span.path, span.since, span.until, span.cause, span.id)
        else:
            current = replace(current, until=span.until)
    if current is not None:
        yield current

"""Who is told of an event, and when.

Rules: pure. Times are seconds since the epoch, since they outlive a restart; a clock that was set
back delays nothing. Quiet times are local ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as clock_time

from ifdefault.model.config import SEVERITIES, NotifyConfig, Severity
from ifdefault.model.report import Event
from ifdefault.monitor.history.records import Path
from ifdefault.monitor.history.transition import transition_of

FAULTS = ("degraded", "down")  # states of a path
SETTLE_S = 0.5  # a failure is several events: of two families, and of the uplink that takes over
RETRY_S, LONGEST_RETRY_S = 5.0, 600.0
RARE_AFTER_S, RARE_S = 86400.0, 3600.0  # after a day of failures, it is tried once an hour


@dataclass(frozen=True, slots=True)
class Item:
    """An event that a notifier has yet to send. `received`: when the monitor got it. `since`: of
    a recovery, when the fault began that the notifier has been told of; 0 for others."""

    event: Event
    received: float
    since: float = 0.0


def worst(severities: Iterable[Severity]) -> Severity:
    return max(severities, key=SEVERITIES.index, default="info")


def is_selected(config: NotifyConfig, event: Event) -> bool:
    """By severity, kind and uplink."""
    return (
        SEVERITIES.index(event.severity) >= SEVERITIES.index(config.severity)
        and (not config.events or event.kind in config.events)
        and (not config.uplinks or event.uplink in config.uplinks)
    )


def select(
    config: NotifyConfig, events: Iterable[Event], faults: dict[Path, float], now: float
) -> list[Item]:
    """The events that a notifier has to send. A recovery is sent, whatever its severity, where the
    fault was. `faults`: when each began that was sent and isn't over; it is updated."""
    items = []
    for event in events:
        selected, since = is_selected(config, event), 0.0
        if transition := transition_of(event):
            path, state, _ = transition
            if state == "up":
                since = faults.pop(path, 0.0)
            elif state in FAULTS and selected:
                faults.setdefault(path, event.at)
        if selected or since:
            items.append(Item(event, now, since))
    return items


def quiet_until(quiet: tuple[int, int] | None, now: float) -> float:
    """The end of the quiet time that `now` is in; `now` if it is in none. `quiet`: minutes after
    midnight, from and until."""
    if quiet is None:
        return now
    begin, end = quiet
    local = datetime.fromtimestamp(now)  # noqa: DTZ006  quiet times are local ones
    minute = local.hour * 60 + local.minute
    if not (begin <= minute < end if begin <= end else minute >= begin or minute < end):
        return now
    day = local.date() + timedelta(days=int(begin > end and minute >= begin))
    return datetime.combine(day, clock_time(end // 60 % 24, end % 60)).timestamp()


def due_at(config: NotifyConfig, items: Sequence[Item], sent_at: float, now: float) -> float | None:
    """When to send these; None if there are none. `sent_at`: of the message before, 0 if none."""
    if not items:
        return None
    due = items[0].received + SETTLE_S
    if sent_at <= now:
        due = max(due, sent_at + config.group_s)
    if items[0].received > now:  # the clock was set back
        due = now
    if worst(item.event.severity for item in items) == "error":
        return due
    return quiet_until(config.quiet, max(due, now))


def retry_s(failures: int, failing_s: float) -> float:
    """How long to wait after so many failed rounds."""
    if failing_s > RARE_AFTER_S:
        return RARE_S
    return min(RETRY_S * 2.0 ** min(failures - 1, 30), LONGEST_RETRY_S)

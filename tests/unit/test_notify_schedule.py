"""Who is told of an event, and when."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest

from ifdefault.model.config import NotifyConfig
from ifdefault.model.report import Event
from ifdefault.monitor.history.records import Path
from ifdefault.monitor.notify.schedule import (
    LONGEST_RETRY_S,
    RARE_S,
    RETRY_S,
    SETTLE_S,
    due_at,
    is_selected,
    quiet_until,
    retry_s,
    select,
)
from tests.unit.notified import AT, event, outage, path

CONFIG = NotifyConfig("ops", mail="admin@example.org")
NIGHT = (22 * 60, 7 * 60)


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    if before is None:
        monkeypatch.delenv("TZ")
    else:
        monkeypatch.setenv("TZ", before)
    time.tzset()


def at(text: str) -> float:
    """A local time as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("changes", "selected"),
    [
        ({}, [True, True, False]),
        ({"severity": "error"}, [True, False, False]),
        ({"severity": "info"}, [True, True, True]),
        ({"events": ("state",)}, [False, True, False]),
        ({"uplinks": ("isp-a",)}, [True, False, False]),
        ({"uplinks": ("isp-b",), "severity": "info"}, [False, False, True]),
    ],
)
def test_selection(changes: dict[str, object], selected: list[bool]) -> None:
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]
    events = [path(1, "isp-a", "down"), event(2, "disk full"), path(3, "isp-b", "up")]
    assert [is_selected(config, each) for each in events] == selected


def test_a_recovery_is_sent_where_the_fault_was_and_once() -> None:
    config = replace(CONFIG, severity="error")
    faults: dict[Path, float] = {}
    events = [path(1, "isp-a", "down"), path(2, "isp-a", "up", 9.0), path(3, "isp-b", "up", 9.0)]
    items = select(config, events, faults, AT)
    assert [(item.event.serial, item.since) for item in items] == [(1, 0.0), (2, AT)]
    assert not faults
    assert select(config, [path(4, "isp-a", "up")], faults, AT) == []


def test_what_began_as_degraded_ends_when_it_is_up() -> None:
    faults: dict[Path, float] = {}
    select(CONFIG, [path(1, "isp-a", "degraded"), path(2, "isp-a", "down", 5.0)], faults, AT)
    assert faults == {Path("isp-a", 4): AT}


@pytest.mark.parametrize(
    ("quiet", "now", "end"),
    [
        (NIGHT, "2026-10-28 21:59", None),
        (NIGHT, "2026-10-28 22:00", "2026-10-29 07:00"),
        (NIGHT, "2026-10-28 03:00", "2026-10-28 07:00"),
        (NIGHT, "2026-10-28 07:00", None),
        (NIGHT, "2026-10-24 23:00", "2026-10-25 07:00"),  # the clock is set back in between
        (NIGHT, "2026-03-28 23:00", "2026-03-29 07:00"),  # and forth
        ((12 * 60, 13 * 60), "2026-10-28 12:30", "2026-10-28 13:00"),
        ((12 * 60, 13 * 60), "2026-10-28 13:30", None),
        ((0, 6 * 60), "2026-10-28 00:00", "2026-10-28 06:00"),
        ((22 * 60, 0), "2026-10-28 23:00", "2026-10-29 00:00"),
        (None, "2026-10-28 23:00", None),
    ],
)
def test_quiet_times_are_local(quiet: tuple[int, int] | None, now: str, end: str | None) -> None:
    assert quiet_until(quiet, at(now)) == at(end or now)
    if now == "2026-10-24 23:00":
        assert quiet_until(quiet, at(now)) - at(now) == 9 * 3600


def due(config: NotifyConfig, events: list[Event], sent_at: float, now: float) -> float | None:
    return due_at(config, select(config, events, {}, AT), sent_at, now)


def test_the_first_event_is_sent_at_once_and_what_follows_together() -> None:
    down = [*outage(1)]
    assert due(CONFIG, [], 0.0, AT) is None
    assert due(CONFIG, down, 0.0, AT) == AT + SETTLE_S
    assert due(CONFIG, down, AT - 4.0, AT) == AT + 6.0
    assert due(CONFIG, down, AT - 400.0, AT) == AT + SETTLE_S


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    down = [*outage(1)]
    assert due(CONFIG, down, AT + 3600.0, AT) == AT + SETTLE_S
    assert due(CONFIG, down, 0.0, AT - 3600.0) == AT - 3600.0


def test_in_quiet_times_only_errors_are_sent_and_what_waits_goes_with_them() -> None:
    config, night = replace(CONFIG, quiet=NIGHT), at("2026-10-28 23:00")
    warning = event(1, "disk full", after_s=night - AT)
    error = path(2, "isp-a", "down", night - AT)
    select_at = [*select(config, [warning], {}, night)]
    assert due_at(config, select_at, 0.0, night) == at("2026-10-29 07:00")
    both = [*select_at, *select(config, [error], {}, night)]
    assert due_at(config, both, 0.0, night) == night + SETTLE_S
    # it was due before they began
    assert due_at(config, select_at, 0.0, at("2026-10-29 07:00")) == at("2026-10-29 07:00")


def test_it_is_retried_with_growing_pauses() -> None:
    waits = [retry_s(n, 0.0) for n in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[0] == RETRY_S
    assert waits[-1] == retry_s(1000, 0.0) == LONGEST_RETRY_S
    assert retry_s(200, 2 * 86400.0) == RARE_S

"""What a notification says: subject and text, of what happened in the meantime."""

from __future__ import annotations

import pytest

from ifdefault.model.config import NotifyConfig
from ifdefault.model.report import Event
from ifdefault.monitor.history.records import Path
from ifdefault.monitor.notify.message import LONGEST_SUBJECT, Message, compose, message_id
from ifdefault.monitor.notify.schedule import select
from tests.unit.notified import AT, FAMILIES, event, outage, path, primary

CONFIG = NotifyConfig("ops", mail="admin@example.org")


def written(
    events: list[Event], sent_before: list[Event] | None = None, after_s: float = 1.0
) -> Message:
    faults: dict[Path, float] = {}
    select(CONFIG, sent_before or [], faults, AT)
    items = select(CONFIG, events, faults, AT)
    return compose(items, "ops", "web1", FAMILIES, AT + after_s)


DOWN = [*outage(1)]
UP = [*outage(1, up_after_s=203.0)][4:]


@pytest.mark.parametrize(
    ("events", "before", "after_s", "subject"),
    [
        (
            DOWN,
            [],
            1.0,
            "isp-a is down (4 rounds lost in 310 ms); new connections use isp-b",
        ),
        (
            DOWN,
            [],
            300.0,
            "isp-a is down since 14:02:10 UTC (4 rounds lost in 310 ms); new connections use isp-b",
        ),
        (UP, DOWN, 204.0, "isp-a is up again after 3m23s; new connections use isp-a"),
        (DOWN + UP, [], 204.0, "isp-a was down 14:02:10-14:05:33 UTC, 3m23s"),
        (
            DOWN + UP,
            [],
            90_000.0,
            "isp-a was down 2026-10-28 14:02:10-14:05:33 UTC, 3m23s",
        ),
        (
            [*DOWN, *UP, *outage(10, 600.0, 60.0)],
            [],
            700.0,
            "isp-a was down 2 times 14:02:10-14:13:10 UTC, 4m23s in all",
        ),
        (
            [*UP, *outage(10, 600.0)],
            DOWN,
            601.0,
            "isp-a is down (4 rounds lost in 310 ms), for the 2nd time since 14:02:10 UTC",
        ),
        ([path(1, "isp-a", "down")], [], 1.0, "isp-a IPv4 is down (4 rounds lost in 310 ms)"),
        ([path(1, "isp-c", "down")], [], 1.0, "isp-c IPv4 is down (4 rounds lost in 310 ms)"),
        (
            [path(1, "isp-a", "degraded"), path(2, "isp-a", "degraded", family=6)],
            [],
            1.0,
            "isp-a is degraded (loss 12 %)",
        ),
        (
            [path(2, "isp-a", "up", 60.0)],
            [path(1, "isp-a", "degraded")],
            61.0,
            "isp-a IPv4 is up again after 1m00s",
        ),
        (
            [path(1, "isp-a", "degraded"), path(2, "isp-a", "up", 60.0)],
            [],
            61.0,
            "isp-a IPv4 was degraded 14:02:10-14:03:10 UTC, 1m00s",
        ),
        ([primary(1, "isp-b", "isp-a")], [], 1.0, "new IPv4 connections use isp-a"),
        (
            [event(1, "disk full"), event(2, "config invalid", severity="error")],
            [],
            1.0,
            "config invalid; disk full",
        ),
        ([event(1, "disk full"), event(2, "disk full")], [], 1.0, "disk full"),
    ],
)
def test_subjects(events: list[Event], before: list[Event], after_s: float, subject: str) -> None:
    message = written(events, before, after_s)
    assert message.subject == f"web1: {subject}"
    assert message.text.startswith(
        subject[:1].upper() if subject.startswith("new ") else subject[:5]
    )


def test_the_text_has_every_event_and_what_could_not_be_kept() -> None:
    message = compose(select(CONFIG, DOWN, {}, AT), "ops", "web1", FAMILIES, AT, omitted=7)
    assert message.text == (
        "isp-a is down (4 rounds lost in 310 ms).\n"
        "New connections use isp-b.\n"
        "7 earlier events couldn't be kept: see ifdefault events.\n"
        "\n"
        "2026-10-28 14:02:10 UTC  error    isp-a IPv4: up -> down (4 rounds lost in 310 ms)\n"
        "2026-10-28 14:02:10 UTC  warning  primary IPv4: isp-a -> isp-b\n"
        "2026-10-28 14:02:10 UTC  error    isp-a IPv6: up -> down (4 rounds lost in 310 ms)\n"
        "2026-10-28 14:02:10 UTC  warning  primary IPv6: isp-a -> isp-b\n"
        "\n"
        "-- \n"
        'ifdefault on web1, notifier "ops"; its state now: ifdefault status\n'
    )
    assert message.severity == "error"
    assert message.events == tuple(DOWN)


def test_a_subject_is_one_line_that_a_phone_shows() -> None:
    events = [event(n, f"problem {n} of a host with many of them\x1b[31m\n") for n in range(1, 50)]
    subject = written(events).subject
    assert len(subject) <= LONGEST_SUBJECT + 20
    assert subject.isprintable()
    assert subject.startswith("web1: problem 1 of a host")
    assert subject.endswith(" more")
    assert len(written([event(1, "x" * 10_000)]).subject) <= LONGEST_SUBJECT + 20


def test_a_message_of_many_events_shows_the_first_and_the_last() -> None:
    text = written([event(n, f"problem {n}.") for n in range(1, 1001)]).text
    assert "problem 100.\n… 800 more …\n" in text
    assert "problem 1000.\n" in text


def test_the_id_is_that_of_the_events() -> None:
    items = select(CONFIG, DOWN, {}, AT)
    assert message_id(items) == "1-4"
    assert message_id(items[:1]) == "1"

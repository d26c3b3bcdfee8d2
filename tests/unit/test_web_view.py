"""What the page says: headlines, charts, explanations of times."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ifdefault.model.headline import headline
from ifdefault.model.health import Decision, Forced, Health, PathState
from ifdefault.model.report import DaemonStatus, Event
from ifdefault.monitor.history.records import Interval, Outage, Path, Tally
from ifdefault.web.access import host_name
from ifdefault.web.chart import BASE, HEIGHT, SPANS, WIDTH, chart
from ifdefault.web.live import Snapshot
from ifdefault.web.view import ago, matching, overview

BOTH = Decision(((4, ("isp-a", "isp-b")), (6, ("isp-a", "isp-b"))))


def status(
    *states: PathState, decision: Decision = BOTH, forced: dict[str, Forced] | None = None
) -> DaemonStatus:
    """Of isp-a IPv4, isp-a IPv6, isp-b IPv4, isp-b IPv6."""
    paths = [Health(u, f, "up", 0, "") for u in ("isp-a", "isp-b") for f in (4, 6)]
    health = tuple(replace(p, state=s) for p, s in zip(paths, states, strict=False))
    return DaemonStatus(1, 1, 1, "c", health, decision, forced or {})


@pytest.mark.parametrize(
    ("now", "text", "tone"),
    [
        (status("up", "up", "up", "up"), "Both uplinks work; new connections use isp-a", "good"),
        (status("up", "up"), "The uplink works; new connections use isp-a", "good"),
        (
            status("down", "down", "up", "up"),
            "isp-a is down; new connections use isp-a",
            "bad",
        ),
        (
            status("up", "down", "up", "recovering"),
            "isp-a is down for IPv6; isp-b is recovering for IPv6; new connections use isp-a",
            "bad",
        ),
        (
            status("up", "up", "up", "up", decision=Decision(((4, ("isp-b",)), (6, ("isp-a",))))),
            "Both uplinks work; new connections use isp-b (IPv4) and isp-a (IPv6)",
            "good",
        ),
        (
            status("up", "up", "up", "up", forced={"isp-a": "drain", "isp-b": "up"}),
            "isp-a is drained; isp-b is forced up; new connections use isp-a",
            "warn",
        ),
        (status("down", "down", "down", "down"), "Both uplinks are down", "bad"),
        (status("down"), "The uplink is down", "bad"),
        (status(), "No uplink has an address yet", "warn"),
    ],
)
def test_the_headline_says_how_the_uplinks_fare(now: DaemonStatus, text: str, tone: str) -> None:
    assert headline(now) == (text, tone)


def test_an_uplink_without_an_address_is_shown() -> None:
    seen = overview(Snapshot(1e9, status("up", "up")), ("isp-c", "isp-a"), ("history: full",))
    assert [(card.name, card.role) for card in seen.uplinks] == [
        ("isp-c", "no address"),
        ("isp-a", "primary"),
    ]
    assert seen.headline.endswith("; 1 problem below.")
    assert seen.tone == "warn"


def test_events_are_filtered_by_words_kind_uplink_and_severity() -> None:
    events = [
        Event(1, "path", "isp-a", "isp-a IPv4: up -> down", "error", 1),
        Event(2, "dns", "", "www.example.net: TTL 30 -> 5", "info", 2),
        Event(3, "path", "isp-b", "isp-b IPv4: up -> degraded", "warning", 3),
    ]

    def serials(**filters: str) -> list[int]:
        full = {"text": "", "kind": "", "uplink": "", "severity": "info", **filters}
        return [event.serial for event in matching(events, **full)]

    assert serials() == [1, 2, 3]
    assert serials(text="UP ipv4") == [1, 3]
    assert serials(kind="dns") == [2]
    assert serials(uplink="isp-b") == [3]
    assert serials(severity="warning") == [1, 3]
    assert serials(severity="nonsense") == [1, 2, 3]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (7500, "2 h 5 min"), (1e5, "1 d 3 h")],
)
def test_ages_are_coarse(seconds: float, text: str) -> None:
    assert ago(seconds) == text


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("LOCALHOST:80", "localhost"),
        ("[::1]:80", "::1"),
        ("a.example.", "a.example"),
        ("a@localhost", ""),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_a_host_header_names_a_host(header: str, name: str) -> None:
    assert host_name(header) == name


# --- charts -------------------------------------------------------------------------------

NOW = 1_700_000_000.0
PATH = Path("isp-a", 4)


def minute(ago_min: int, answered: int = 100, lost: int = 0, rtt_ms: int = 5) -> Interval:
    at = int(NOW) - 60 * ago_min
    return Interval(at, PATH, Tally(answered, lost, answered * rtt_ms * 1000))


def test_a_chart_has_a_gap_where_nothing_is_known() -> None:
    drawn = chart("isp-a", [*map(minute, (50, 49, 20, 19))], (), "hour", NOW)
    assert drawn is not None
    assert [line.family for line in drawn.lines] == [4]
    assert drawn.lines[0].d.count("M") == 2
    assert (drawn.top, drawn.loss, drawn.outages) == ("5 ms", "", ())
    assert drawn.summary == "Last hour: IPv4 0 % lost, 5.0 ms; no outages"
    assert len(drawn.ticks) == 5


def test_a_chart_shows_loss_and_outages_of_both_families_once() -> None:
    outages = [
        Outage(Path("isp-a", 4), NOW - 1200, NOW - 600, "silence", 1),
        Outage(Path("isp-a", 6), NOW - 1100, NOW - 500, "silence", 2),
        Outage(PATH, NOW - 60, None, "silence", 3),
    ]
    drawn = chart("isp-a", [minute(10, answered=0, lost=100), minute(5)], outages, "hour", NOW)
    assert drawn is not None
    assert [(band.x, band.width) for band in drawn.outages] == [(400.0, 116.7), (590.0, 10.0)]
    assert drawn.loss.count("M") == 1
    assert drawn.summary == "Last hour: IPv4 50 % lost, 5.0 ms; 2 outages of 12 min"


def test_a_chart_stays_small_and_inside_its_box() -> None:
    month = SPANS["month"]
    hours = [
        Interval(int(NOW) - at, PATH, Tally(100, at % 7, (at % 97) * 10_000))
        for at in range(0, month, 3600)
    ]
    drawn = chart("isp-a", hours, (), "month", NOW)
    assert drawn is not None
    assert len(drawn.lines[0].d) + len(drawn.loss) < 8000
    for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", drawn.lines[0].d + drawn.loss):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT
    assert drawn.base == BASE
    assert chart("isp-a", [], (), "hour", NOW) is None

"""`ifdefault history` over a history of two months, with a simulated clock."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import pytest
from click.testing import CliRunner

from ifdefault.cli.main import cli
from ifdefault.cli.show import history as show
from ifdefault.model.report_text import duration, size
from ifdefault.monitor.history.budget import budget, month_of
from ifdefault.monitor.history.file import HistoryFile
from ifdefault.monitor.history.reader import history_dir
from ifdefault.monitor.history.records import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    Batch,
    Path,
    Span,
    Tally,
    Target,
    Traffic,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DOWN, UP = NOW - 7200, NOW - 7200 + 132.5
CAUSE = "8 rounds lost in 430 ms, the gateway answers"
CONFIG = """\
[uplink.isp-a]
interface = "wan0"
[uplink.isp-b]
interface = "wan1"
budget = "500 GB"
"""
A4, B4 = Path("isp-a", 4), Path("isp-b", 4)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    """Since 20 days, an hour at a time; minutes around one outage of isp-a."""
    folder = tmp_path_factory.mktemp("history")
    (folder / "c.toml").write_text(CONFIG)
    file = HistoryFile(history_dir(folder))
    spans = [Span(path, "up", NOW - 20 * DAY_S, None, "answers") for path in (A4, B4)]
    batch = Batch(spans=[*spans], seen=NOW)
    for at in range(int(NOW) - 20 * DAY_S, int(NOW) - 3 * HOUR_S, HOUR_S):
        for path in (A4, B4):
            counts = Tally(7198, 2, 7198 * 12_000, (0, 0, 0, 0, 7000, 198), up_ms=HOUR_S * 1000)
            batch.add(at, path, counts)
        batch.add_traffic(at, "isp-b", 500_000_000, 800_000_000)
    for at in range(int(NOW) - 3 * HOUR_S, int(NOW), MINUTE_S):
        down = int(min(max(min(at + 60, UP) - max(at, DOWN), 0), 60))
        batch.add(at, A4, _minute(down))
        batch.add(at, B4, _minute(0))
        if at == int(DOWN):
            batch.spans += [
                Span(A4, "down", DOWN, None, CAUSE),
                Span(A4, "recovering", UP - 2.5, None, "icmp://1.1.1.1 answers"),
                Span(A4, "up", UP, None, "answers for 2.5 s"),
            ]
            targets = Target(A4, "icmp://1.1.1.1", 0, 88), Target(B4, "icmp://1.1.1.1", 66, 0)
            batch.targets.append((A4, targets))
    file.write(batch, NOW, (), 400 * DAY_S)
    file.close()
    return folder


def _minute(down_s: int) -> Tally:
    lost = 2 * down_s
    rtt = (0, 0, 0, 0, 120 - lost)
    return Tally(
        120 - lost, lost, (120 - lost) * 12_000, rtt, (60 - down_s) * 1000, 0, 0, down_s * 1000
    )


def _run(state_dir: FilePath, *arguments: str, code: int = 0) -> str:
    head = ("-c", str(state_dir / "c.toml"), "--state-dir", str(state_dir), "history")
    done = CliRunner().invoke(cli, [*head, *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def test_it_fits_into_80_columns_and_says_all(state_dir: FilePath) -> None:
    shown = _run(state_dir)
    assert max(map(len, shown.splitlines())) <= 80
    assert "isp-a IPv4  2026-11-20 10:00:00  10:02:12" in shown
    assert "isp-a IPv4  2026-11  99.992 %" in shown
    assert "isp-b IPv4  2026-11  100.000 %" in shown
    assert "isp-b: 604 GB of 500 GB (121 %) since 2026-11-01: the budget is used up" in shown


def test_json_says_the_same(state_dir: FilePath) -> None:
    said: Any = json.loads(_run(state_dir, "--json", "isp-a"))
    [outage] = said["outages"]
    assert (outage["since"], outage["until"], outage["cause"]) == (DOWN, UP, CAUSE)
    assert {month["uplink"] for month in said["months"]} == {"isp-a"}
    assert said["traffic"] == []


def test_only_what_is_since(state_dir: FilePath) -> None:
    assert "no outage since" in _run(state_dir, "--since", "1h", "--outages")
    assert CAUSE[:20] in _run(state_dir, "--since", "2026-11-20", "--outages")


def test_a_report_can_be_sent(state_dir: FilePath) -> None:
    number = json.loads(_run(state_dir, "--json"))["outages"][0]["outage"]
    report = _run(state_dir, "--report", str(number))
    assert report.isascii()
    assert max(map(len, report.splitlines())) <= 76
    for line in (
        "OUTAGE OF isp-a (IPv4)",
        "From:      2026-11-20 10:00:00.000 UTC",
        "Until:     2026-11-20 10:02:12.500 UTC",
        "Duration:  2 min 12 s",
        f"  2026-11-20 10:00:00.000  down: {CAUSE[:36]}",
        "  2026-11-20 09:59        120 of 120        120 of 120",
        "  2026-11-20 10:00          0 of 120        120 of 120",
        f"  {'icmp://1.1.1.1':<32}{'0 of 88':>18}{'66 of 66':>18}",
        "Last minute with an answer before it: 09:59 UTC",
    ):
        assert line in report, line


def test_what_isnt_known_is_said(state_dir: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + 5 * DAY_S)
    shown = _run(state_dir)
    assert "Known" in shown
    assert "80 %" in shown


@pytest.mark.parametrize("arguments", [("isp-x",), ("--since", "soon"), ("--report", "0")])
def test_bad_arguments(state_dir: FilePath, arguments: tuple[str, ...]) -> None:
    _run(state_dir, *arguments, code=2)


# --- figures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "digits", "text"),
    [(1.0, 3, "100.000 %"), (0.9999999, 3, "99.999 %"), (0.00001, 2, "<0.01 %"), (None, 2, "-")],
)
def test_percent_is_never_better_than_it_was(ratio: float, digits: int, text: str) -> None:
    assert show.percent(ratio, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.24, "3.2 s"), (59.4, "59 s"), (132, "2 min 12 s"), (7200, "2 h"), (180_000, "2 d 2 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 B"), (1000, "1.0 kB"), (123_456_789, "123 MB"), (999_960_000_000, "1.0 TB")],
)
def test_amounts(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("now", "day", "begin", "end"),
    [
        ("2026-11-20", 1, "2026-11-01", "2026-12-01"),
        ("2026-11-20", 25, "2026-10-25", "2026-11-25"),
        ("2026-02-10", 31, "2026-01-31", "2026-02-28"),
        ("2026-03-01", 31, "2026-02-28", "2026-03-31"),
        ("2026-12-31", 15, "2026-12-15", "2027-01-15"),
    ],
)
def test_months_of_the_provider(now: str, day: int, begin: str, end: str) -> None:
    found = month_of(datetime.fromisoformat(now).astimezone(), day)
    assert [f"{when:%Y-%m-%d}" for when in found] == [begin, end]


def test_a_forecast_is_by_the_rate_of_the_last_days() -> None:
    now = datetime.fromtimestamp(NOW).astimezone()
    hours = [Traffic(int(NOW) - n * HOUR_S, "isp-b", 0, 10**9) for n in range(1, 7 * 24 + 1)]
    found = budget(hours, 200 * 10**9, 1, now)
    assert found.used == 168 * 10**9
    assert found.forecast == pytest.approx((168 + 10.5 * 24) * 10**9, rel=0.01)
    assert found.used_up is not None
    assert (found.used_up - now).total_seconds() == pytest.approx(32 * HOUR_S, rel=0.01)
    [line] = show.budget_lines("isp-b", found)
    assert line == (
        "isp-b: 168 GB of 200 GB (84 %) since 2026-11-01; at the rate of the last 7 days 420 GB"
        " until 2026-12-01, and the budget is used up on 2026-11-21"
    )
    counted = budget(hours, 200 * 10**9, 1, now, 190 * 10**9)  # by the engine, which obeys it
    assert counted.used == 190 * 10**9
    assert counted.forecast == pytest.approx((190 + 10.5 * 24) * 10**9, rel=0.01)


def test_little_is_no_ground_for_a_forecast() -> None:
    now = datetime.fromtimestamp(NOW).astimezone()
    assert budget([Traffic(int(NOW) - HOUR_S, "b", 1, 1)], 0, 1, now).forecast is None


ENDLESS = """
DROP TABLE span;
CREATE VIEW span AS
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
SELECT x AS id, 1 AS uplink, 4 AS family, 'up' AS state, x AS since, NULL AS until, '' AS cause
FROM n;
"""


@pytest.mark.parametrize("name", ["history.sqlite", "history.sqlite-journal", "history.sqlite-wal"])
def test_root_does_not_wait_for_a_pipe_of_the_monitors_user(tmp_path: FilePath, name: str) -> None:
    folder = history_dir(tmp_path)
    HistoryFile(folder).write(Batch(seen=NOW), NOW, (), DAY_S)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    result = CliRunner().invoke(cli, ["--state-dir", str(tmp_path), "history"])
    assert "can't be read: not a regular file" in str(result.exception)


def test_a_history_that_has_just_begun_does_not_say_that_nobody_records(
    tmp_path: FilePath,
) -> None:
    HistoryFile(history_dir(tmp_path)).open()
    done = CliRunner().invoke(cli, ["--state-dir", str(tmp_path), "history"])
    assert "nothing has been recorded yet" in done.output
    assert "1970" not in done.output


def test_a_history_that_is_still_empty_is_none_yet(tmp_path: FilePath) -> None:
    history_dir(tmp_path).mkdir()
    (history_dir(tmp_path) / "history.sqlite").touch()
    done = CliRunner().invoke(cli, ["--state-dir", str(tmp_path), "history"])
    assert "nothing has been recorded yet" in str(done.exception)


def test_root_does_not_run_what_the_monitors_user_has_put_into_it(tmp_path: FilePath) -> None:
    folder = history_dir(tmp_path)
    HistoryFile(folder).write(Batch(seen=NOW), NOW, (), DAY_S)
    with sqlite3.connect(folder / "history.sqlite") as db:
        db.executescript(ENDLESS)
    result = CliRunner().invoke(cli, ["--state-dir", str(tmp_path), "history"])
    assert "has views or triggers" in str(result.exception)

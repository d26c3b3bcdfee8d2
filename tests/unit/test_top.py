"""`top`: what it shows at each size, and what its keys do on a terminal of its own."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from subprocess import DEVNULL, PIPE, Popen, run
from typing import Any

import pytest

from ifdefault.cli.show import chart, dashboard, uplink_page
from ifdefault.cli.show.chart import Row
from ifdefault.cli.show.dashboard import SORTS, View
from ifdefault.cli.show.event_rows import matches
from ifdefault.cli.show.samples import Samples, Slot, scale
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.model.headline import headline
from ifdefault.monitor.history.records import Interval, Path, Tally
from tests.unit.fake_engine import FakeEngine
from tests.unit.test_screen import Start, Terminal, resize, start

__all__ = ["start"]  # a fixture
SIZES = [(10, 40), (24, 80), (32, 120), (60, 200), (1, 1), (3, 200), (200, 30)]


def view(**changes: Any) -> View:
    """What a fake engine says, after a minute of it."""
    engine, samples = FakeEngine(), Samples()
    for second in range(60, 0, -1):
        status = engine.status()
        now = status.now_s - second
        samples.add(replace(status, now_s=now), engine.counters())
    shown = View(engine.status(), samples, engine.events, "isp-a")
    return replace(shown, **changes)


def text(rows: list[Row], columns: int = 200) -> str:
    return "\n".join(row.painted(columns) for row in rows)


@pytest.mark.parametrize(("height", "columns"), SIZES)
@pytest.mark.parametrize("page", [dashboard.rows, uplink_page.rows])
def test_it_fits(page: Callable[[View, int, int], list[Row]], height: int, columns: int) -> None:
    rows = page(view(), height, columns)
    assert page is uplink_page.rows or len(rows) <= height
    assert all(len(row.painted(columns)) <= columns for row in rows)


def test_a_small_screen_has_what_matters() -> None:
    shown = text(dashboard.rows(view(), 9, 40), 40)
    assert "isp-c is down for IPv4" in shown
    assert re.search(r"isp-c\s+IPv4\s+down", shown)
    assert "IPv6" in shown
    selected = text(dashboard.rows(view(selected="isp-c"), 4, 40), 40)
    assert "> isp-c" in selected


def test_a_large_screen_has_all_of_it() -> None:
    shown = text(dashboard.rows(view(), 60, 200))
    for part in (
        r"Uplink .*State .*Since .*Loss .*RTT .*Last 2 min .*In .*Out .*TCP .*Role",
        r"> isp-a +IPv4 +up +2h13m +0\.0 % .* ms .*Mbit/s.* 1204 +primary",
        r"isp-c +IPv4 +down +3m12s +100 % .*not used",
        r"isp-c IPv4: down: no target answers",
        r"isp-b: 96 % of 10 Mbit/s out, an eighth of its weight",
        r"www\.example\.org +isp-a 203\.0\.113\.10",
        r"tcp:443 +1 of 2 servers up; 192\.0\.2\.8:443 is down: refused",
        r"path +isp-c IPv4: up -> down \(4 rounds lost in 310 ms\)",
        r"hostile \\x1b\[31mname\\u202e",
    ):
        assert re.search(part, shown), part


def test_a_section_without_room_is_cut() -> None:
    shown = text(dashboard.rows(view(), 18, 120), 120)
    assert re.search(r"and \d more\n", shown)
    assert "Events" in shown


def test_an_uplink() -> None:
    shown = text(uplink_page.rows(view(selected="isp-b"), 60, 120), 120)
    for part in (
        "isp-b  follows its probes; 87 TCP connections",
        "IPv4  up for 2h13m",
        "loss 0.0 %, RTT ",
        r"Traffic  at most .* in \d+ min; 96 % of 10 Mbit/s out, an eighth of its weight",
        r"icmp://9\.9\.9\.9 +15321 +41 +12\.9 ms +silent for 12 s",
        r"order of uplinks: isp-a, isp-b, \(isp-c\)",
        "all.example.org leads here: 198.51.100.10",
        "5 min ago",
    ):
        assert re.search(part, shown), part
    assert "not there" in text(uplink_page.rows(view(selected="gone"), 60, 120))


def test_the_history_fills_what_was_before() -> None:
    shown, epoch = view(), 1e9 - 1e9 % 60
    shown.samples.paths.clear()
    path = Path("isp-a", 4)
    minutes = [
        Interval(int(epoch) - 60 * n, path, Tally(100, int(n == 2), 100 * 4000 * n))
        for n in range(30, 0, -1)
    ]
    shown.samples.add_history(minutes, shown.status.now_s, epoch)
    slots = shown.samples.slots(("isp-a", 4), shown.status.now_s, 10, 30.0)
    assert {slot.rtt_ms for slot in slots[1:-1]} >= {4.0, 8.0, 12.0, 16.0}
    assert sum(slot.lost for slot in slots) == 1
    assert [slot.rtt_ms for slot in shown.samples.hour(("isp-a", 4), epoch, 3)] == [12.0, 8.0, 4.0]
    assert "last hour" in text(uplink_page.rows(shown, 60, 120))
    before = len(shown.samples.paths["isp-a", 4])
    shown.samples.add_history(minutes, shown.status.now_s + 60, epoch + 3600)
    assert len(shown.samples.paths["isp-a", 4]) == before
    assert len(shown.samples.minutes["isp-a", 4]) == 1  # within the last hour


def test_sorts() -> None:
    orders = {sort: [*view(sort=sort).uplinks()] for sort in SORTS}
    assert orders["config"] == ["isp-a", "isp-b", "isp-c"]
    assert orders["state"][0] == orders["loss"][0] == orders["RTT"][0] == "isp-c"
    assert orders["traffic"] == ["isp-a", "isp-b", "isp-c"]


def test_headline() -> None:
    engine = FakeEngine()
    status = engine.status()
    assert headline(status) == ("isp-c is down for IPv4; new connections use isp-a", "bad")
    well = replace(status, health=tuple(h for h in status.health if h.state == "up"))
    assert headline(well) == ("All 3 uplinks work; new connections use isp-a", "good")
    ill = [replace(h, uplink=f"up{n}", state="down") for n, h in enumerate(well.health)]
    text, _ = headline(replace(well, health=(*well.health, *ill)))
    assert text == (
        "up0 is down; up1 is down; up2 is down; 2 more aren't well; new connections use isp-a"
    )


def test_charts() -> None:
    assert [chart.bar(ratio, 2) for ratio in (0, 0.001, 0.5, 0.8, 1, 7)] == [
        *("  ", "▏ ", "█ ", "█▋", "██", "██"),
    ]
    assert chart.columns_chart([0.0, 0.5, 1.0, None], 2) == ["  █ ", "▁██ "]
    cells = dashboard.sparkline(
        [Slot(), Slot(5.0), Slot(10.0, lost=True), Slot(5.0), Slot(lost=True), Slot(down=True)]
    )
    assert [cell for cell, _ in cells] == [" ", "▅", "█", "▅", "×", "×"]
    assert [style for _, style in cells] == [None, "good", "warn", "good", "bad", "bad"]
    assert scale([]) == 1.0


def test_ascii_where_there_are_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "has_blocks", lambda: False)
    assert text(dashboard.rows(view(), 60, 200)).isascii()
    assert Row().add("longer").painted(4) == "lon~"


def test_events_are_filtered() -> None:
    events = FakeEngine().events
    assert [e.serial for e in events if matches(e, "ISP-C", "info")] == [3, 4]
    assert [e.serial for e in events if matches(e, "", "warning")] == [3, 5]


# --- on a terminal --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilePath]:
    run_dir = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "tests.unit.fake_engine", str(run_dir)]
    with Popen(command, stdout=PIPE, cwd=FilePath(__file__).parents[2]) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        yield run_dir
        child.kill()


PROGRAM = """
from ifdefault.cli import main
from ifdefault.cli.show import poll, top_screen
top_screen.REFRESH_S, poll.INTERVAL_S = 0.05, 0.1
main.main()
"""


def command(run_dir: FilePath) -> list[str]:
    return [sys.executable, "-c", PROGRAM, "--run-dir", str(run_dir), "top"]


@pytest.fixture
def top(engine: FilePath, start: Start, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    terminal = start(*command(engine), program=False)
    resize(terminal.program_fd, 32, 120)
    return terminal


def test_keys(top: Terminal) -> None:
    before = top.mode()
    top.read_until(r"> .{0,20}isp-a.*1204.*q.{0,6} quit")
    assert top.said.startswith("\x1b[?1049h\x1b[?25l")
    top.press("\x1b[B")
    top.read_until("> .{0,20}isp-b")
    top.press("dn")
    top.read_until("nothing changed")
    top.press("d")
    top.read_until(r"give isp-b no new connections\? y/n")
    top.press("y")
    top.read_until(r"isp-b: auto -> drain")
    top.read_until("isp-b is drained.*draining until")
    top.press("\r")
    top.read_until("forced drain by the operator.*Decision")
    top.press("a")
    top.press("y")
    top.read_until("follows its probes")
    top.press("e/Hostile\r")
    top.read_until(r'1 of \d events, with "Hostile".*hostile \\x1b')
    top.press("ww")
    top.read_until("0 of . events, error")
    top.press("?")
    top.read_until("space +pause, and go on")
    top.press("\x1b")
    top.read_until("Last 2 min")
    top.press(" s")
    top.read_until("sorted by state")
    resize(top.program_fd, 10, 40)
    top.read_until(r"isp-c is down for IPv4")
    top.press("q")
    assert top.child.wait(PATIENCE_S) == 0
    assert top.mode() == before
    rest = os.read(top.fd, 65536).decode() if "\x1b[?1049l" not in top.said else top.said
    assert "\x1b[?25h\x1b[?1049l" in rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_restored(top: Terminal, number: int) -> None:
    before = top.mode()
    top.read_until("isp-a")
    top.child.send_signal(number)
    top.child.wait(PATIENCE_S)
    assert top.mode() == before


def test_it_waits_for_an_engine(
    tmp_path: FilePath, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = start(*command(tmp_path), program=False)
    terminal.read_until("no daemon runs; start it")
    fake = [sys.executable, "-m", "tests.unit.fake_engine", str(tmp_path)]
    with Popen(fake, stdout=DEVNULL, cwd=FilePath(__file__).parents[2]) as child:
        terminal.read_until(r"isp-. is .*> isp-a")
        child.kill()
    terminal.read_until(r"no daemon runs; start it.*> isp-a")
    assert "\x1b[3" not in terminal.said


@pytest.mark.parametrize(("term", "said"), [("xterm", "not a terminal"), ("dumb", "")])
def test_elsewhere_it_points_to_status(tmp_path: FilePath, term: str, said: str) -> None:
    env = os.environ | {"TERM": term}
    done = run(command(tmp_path), capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"ifdefault: top: .*{said}; use ifdefault status.*\n", done.stderr)

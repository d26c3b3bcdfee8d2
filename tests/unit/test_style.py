"""Colours and widths: what a line looks like on a terminal, and elsewhere."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable

import pytest

from ifdefault.cli.show.output import echo_lines
from ifdefault.cli.show.style import Line, paint_states
from ifdefault.cli.show.table import print_problems, table
from ifdefault.model.errors import Problem

SGR = re.compile(r"\x1b\[[0-9;]*m")
ROWS = (
    ("isp-a", "IPv6", "up", "2h05m", "0.0 %", "64.3 ms", "primary", "2606:4700:4700::1111 answers"),
    ("isp-b", "IPv4", "down", "4.4s", "100 %", "0.6 ms", "not used", "8 rounds lost in 421 ms"),
)
HEADS = ("Uplink", "", "State", "Since", "Loss", "RTT", "Role", "Cause")


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """What a function tells a terminal, as its standard output and error."""
    for name in ("NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def told(function: Callable[[], None]) -> str:
        raw = io.BytesIO()
        stream = Terminal(raw, "utf-8", write_through=True)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            patched.setattr(sys, "stderr", stream)
            function()
        return raw.getvalue().decode()

    return told


Tell = Callable[[Callable[[], None]], str]


def show() -> None:
    echo_lines([*table(HEADS, ROWS), Line("held: paused", "warn"), "plain"])
    print_problems([Problem("a", "is wrong"), Problem("b", "is odd", warning=True)])


def test_states_and_headings_have_colours_on_a_terminal(terminal: Tell) -> None:
    told = terminal(show)
    assert "\x1b[1mUplink\x1b[0m" in told
    assert "\x1b[32mup\x1b[0m" in told
    assert "\x1b[31mdown\x1b[0m" in told
    assert "\x1b[33mheld: paused\x1b[0m\nplain\n" in told
    assert "\x1b[31merror: a: is wrong\x1b[0m\n\x1b[33mwarning: b: is odd\x1b[0m\n" in told


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_none_where_they_are_not_wanted(
    name: str, value: str, terminal: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert not SGR.search(terminal(show))


def test_none_in_a_pipe_unless_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICOLOR_FORCE", "0")
    show()
    plain = capsys.readouterr()
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    show()
    coloured = capsys.readouterr()
    monkeypatch.setenv("NO_COLOR", "1")
    show()
    assert capsys.readouterr() == plain
    assert coloured != plain
    assert tuple(SGR.sub("", text) for text in coloured) == tuple(plain)


def test_colours_of_others_are_shown_as_text(terminal: Tell) -> None:
    def tell() -> None:
        rows = [("\x1b[5mx", "\x1b[7mup")]
        echo_lines([Line("a \x1b[31mb", "warn"), *table(("A", "State"), rows)])

    told = terminal(tell)
    assert set(SGR.findall(told)) <= {"\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[33m"}
    assert r"\x1b[5mx" in told


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal(
    columns: int, terminal: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    long = "  pref 4990: from 2001:db8:a::10 lookup 1001 goes to isp-b, and not where it is meant"
    told = terminal(lambda: echo_lines([*table(HEADS, ROWS), Line(long, "bad"), long]))
    rows = SGR.sub("", told).splitlines()
    assert max(map(len, rows)) <= columns
    assert max(map(len, rows)) > columns // 2
    words = " ".join(row.strip() for row in rows)
    assert words.count("and not where it is meant") == 2
    begins = [row for row in rows if row.startswith("  pref")]
    assert len(begins) == 2
    assert columns > 100 or all(row.startswith("  ") for row in rows[-2:])


def test_lines_are_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 40 + "end"
    echo_lines([long])
    assert capsys.readouterr().out == f"{long}\n"


def test_only_states_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    assert paint_states("IPv4 up, uptime downtown") == "IPv4 \x1b[32mup\x1b[0m, uptime downtown"

"""What commands print of names that others chose."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from ifdefault.cli import demo
from ifdefault.cli.show.output import echo, echo_json, echo_usage
from ifdefault.cli.show.table import table
from ifdefault.lab.demo_scenario import DemoResult, Row
from ifdefault.model.errors import Problem

OTHERS = "\x1b]0;x\x07\x9b31m\u202egnp\u200b\udcff\x7f"
SHOWN = r"\x1b]0;x\x07\x9b31m\u202egnp\u200b\xff\x7f"


def test_a_terminal_obeys_none_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"a\n\tb {OTHERS}\r")
    echo(OTHERS, err=True, nl=False)
    assert capsys.readouterr() == (f"a\n\tb {SHOWN}\\r\n", SHOWN)


def test_json_has_escapes_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"name": OTHERS})
    out, _ = capsys.readouterr()
    assert out.replace("\n", "").isprintable()
    assert json.loads(out) == {"name": OTHERS}


def test_errors_of_the_command_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    echo_usage(click.UsageError(f'no command "{OTHERS}"'))
    assert capsys.readouterr().err == f'Error: no command "{SHOWN}"\n'


def test_columns_are_as_wide_as_what_is_shown() -> None:
    rows = table(("Name", "State"), [(OTHERS, "up"), ("b", "down")])
    assert [row.index(word) for row, word in zip(rows, ("State", "up", "down"), strict=True)] == [
        len(SHOWN) + 2
    ] * 3


def test_a_problem_is_one_line() -> None:
    assert str(Problem("cgroup /a\nerror: b", OTHERS)) == rf"cgroup /a\nerror: b: {SHOWN}"


@pytest.mark.parametrize(
    ("color", "head"), [(True, "\x1b[1m$ ifdefault plan\x1b[0m"), (False, "$ ifdefault plan")]
)
def test_the_demo_has_colours_of_its_own(
    color: bool, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row("tcp", "isp-a", 4, 10, 10, 0, 0, 0, 0)
    result = DemoResult("two", "", (), (row,), "", "", (row,), (), None, 0)
    monkeypatch.setattr(demo, "run_demo", lambda *_: result)
    monkeypatch.setattr("ifdefault.cli.demo.rootless.enter_alone", lambda: None)
    monkeypatch.setattr("ifdefault.cli.demo.signal.signal", lambda *_: None)
    env = {"CLICOLOR_FORCE": str(int(color))}
    ran = CliRunner().invoke(demo.command, [], standalone_mode=False, color=color, env=env)
    assert ran.exit_code == 0, ran.output
    assert head in ran.output.splitlines()
    assert ("\x1b" in ran.output, r"\x1b" in ran.output) == (color, False)

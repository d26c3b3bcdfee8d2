"""What `ifdefault demo` prints."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from ifdefault.cli import demo
from ifdefault.lab.demo_outage import Outage, Span, VisitSummary
from ifdefault.lab.demo_scenario import DemoResult, Row

ROWS = (
    Row("ping", "isp-a", 4, tried=20, answered=20, hung=0, wrong=0, failed=0, misrouted=0),
    Row("ping", "isp-b", 4, tried=20, answered=0, hung=20, wrong=0, failed=0, misrouted=20),
)
VISITS = VisitSummary("www.example", 80, 40, 1.0, None, (Span(0.0, 40, 0), Span(1.0, 40, 40)))
OUTAGE = Outage("isp-a", 1, 6.0, VISITS, VISITS, ((0.9, "path", "isp-a: up -> down \x1b[5m"),))
RESULT = DemoResult("two", "", (), ROWS, "plan\n", "status\n", ROWS, (), OUTAGE, 0)


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_its_colours_are_obeyed_by_a_terminal_and_those_of_others_are_not(
    monkeypatch: pytest.MonkeyPatch, *, on_a_terminal: bool
) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda *_: RESULT)
    monkeypatch.setattr("ifdefault.lab.rootless.enter_alone", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    env = {"CLICOLOR_FORCE": str(int(on_a_terminal))}
    printed = CliRunner().invoke(demo.command, color=on_a_terminal, env=env).stdout
    assert (("\x1b[32m" in printed) and ("\x1b[31m" in printed)) == on_a_terminal
    assert printed.count(r"\x1b") == 1
    assert r"down \x1b[5m" in printed

"""The list of tests for other kernels names tests that there are; `./dev system` ends with what has
failed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.system import debian
from tests.system.chosen import CHOSEN, ON_BOTH, arguments
from tests.system.summary import LINES, TIMED_OUT, Outcome, summary, unfinished

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("node", [*(node for nodes in CHOSEN.values() for node in nodes), *ON_BOTH])
def test_a_chosen_test_exists(node: str) -> None:
    path, _, name = node.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    functions = {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}
    assert not name or name.partition("[")[0] in functions


def test_each_chosen_test_runs_on_a_kernel() -> None:
    """And what is in tests/system, where more tests come."""
    run = {node for release in debian.SERIES for node in arguments(release)}
    assert run >= {"tests/system", *(node for nodes in CHOSEN.values() for node in nodes)}


SAID = """\
============================= test session starts ==============================
created: 3/3 workers
3 workers [2 items]

tests/systemd/test_a.py::test_one
tests/systemd/test_a.py::test_two[x y]
[gw1] [ 50%] PASSED tests/systemd/test_a.py::test_two[x y]
[gw0] [100%] FAILED tests/systemd/test_a.py::test_one
=================================== FAILURES ===================================
___________________________________ test_one ___________________________________
[gw0] linux -- Python 3.11.7 .venv/bin/python
tests/systemd/test_a.py:3: in test_one
    assert host.state(DAEMON) == "active"
E   AssertionError: assert 'failed' == 'active'
----------------------------- Captured lab teardown ----------------------------
+ ip address
{}
the last of the journal
============================= slowest 10 durations =============================
1.00s call     tests/systemd/test_a.py::test_one
=========================== short test summary info ============================
FAILED tests/systemd/test_a.py::test_one - AssertionError: assert 'failed' ==...
========================= 1 failed, 1 passed in 2.00s ==========================
""".format("\n".join(f"lo {n}" for n in range(1000)))


def test_the_summary_of_what_has_failed() -> None:
    """Each part that failed shows why; the last lines tell of all parts."""
    failed = Outcome("systemd", "1", 450.4, SAID.splitlines())
    killed = Outcome(
        "6.1", "not done after 870 s", 871, ["tests/net/test_b.py::test_c PASSED [9%]"]
    )
    lines = summary([failed, Outcome("suites", "0", 150, ["12 passed"]), killed])
    assert len(lines) <= LINES + 20
    assert "E   AssertionError: assert 'failed' == 'active'" in lines
    assert "the last of the journal" in lines
    assert "tests/net/test_b.py::test_c PASSED [9%]" in lines
    assert lines[-4:] == [
        " systemd  failed after 450 s: exit status 1",
        f"{'':10}FAILED tests/systemd/test_a.py::test_one - AssertionError: assert 'failed' ==...",
        "  suites  passed in 150 s",
        "     6.1  failed after 871 s: not done after 870 s",
    ]


def test_the_summary_of_many_failures() -> None:
    report = SAID[SAID.index("____") : SAID.index("=== slowest") + 1]
    said = SAID.replace(report, report * 40).splitlines()
    lines = summary([Outcome("systemd", "1", 450, said)])
    assert LINES < len(lines) <= LINES + 20


def test_the_summary_names_what_was_running() -> None:
    workers = SAID.splitlines()[:7]
    assert unfinished(workers) == ["tests/systemd/test_a.py::test_one"]
    guest = ["tests/net/test_b.py::test_c[two] PASSED   [  9%]", "tests/net/test_b.py::test_d"]
    assert unfinished(guest) == ["tests/net/test_b.py::test_d"]
    (*_, last) = summary([Outcome("systemd", TIMED_OUT, 870, workers)])
    assert last.endswith("its time was up; unfinished: tests/systemd/test_a.py::test_one")

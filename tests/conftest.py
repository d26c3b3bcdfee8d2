"""What all tests share: pytest's options, and that a skipped test is a failed one."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Generator
from typing import TypeVar

import hypothesis
import pytest

# helpers' assertions, too, show what they compared
pytest.register_assert_rewrite("tests.net", "tests.unit", "tests.simulation")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# Runs repeat exactly, and a slow machine is no failure.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "quick", hypothesis.settings.get_profile("repeatable"), max_examples=10
)
hypothesis.settings.load_profile("repeatable")


# The caller may ignore SIGHUP (nohup), have few descriptors or a wide terminal; what is tested
# doesn't.
os.environ["COLUMNS"] = "80"
signal.signal(signal.SIGHUP, signal.SIG_DFL)
_ALLOWED = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (_ALLOWED, _ALLOWED))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ifdefault")
    group.addoption("--golden-update", action="store_true", help="write tests/golden anew")
    group.addoption("--quick", action="store_true", help="fewer random examples")
    group.addoption("--keep", action="store_true", help="keep the lab's namespaces after a test")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        hypothesis.settings.load_profile("quick")


def fail_skip(report: Report) -> Report:
    """Turn a skip into a failure: a test that can't run here must say so aloud (xfail stays)."""
    if report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {why}; a skip counts as a failure: make it able to run"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return fail_skip((yield))

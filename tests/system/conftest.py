"""Tests that need a kernel with more in it than the build machine's: they run in `./dev system`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.net.conftest import (
    _network_rights,
    lab_world,
    pytest_runtest_makereport,
)
from tests.system import GUEST

__all__ = ["_network_rights", "lab_world", "pytest_runtest_makereport"]

# elsewhere they aren't there, rather than skipped
collect_ignore_glob = [] if GUEST in os.environ else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.net)

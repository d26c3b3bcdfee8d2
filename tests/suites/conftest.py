"""Tests with the programs of others that `./dev system` installs, and tests that take long.

Rules: elsewhere they aren't there, rather than skipped: they are collected where they are named.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.net.conftest import _network_rights, lab_world, pytest_runtest_makereport

__all__ = ["_network_rights", "lab_world", "pytest_runtest_makereport"]

_HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if any("tests/suites" in word for word in config.args) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.net)

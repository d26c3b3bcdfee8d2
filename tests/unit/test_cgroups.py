"""Control groups by their ids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifdefault.kernel.ebpf import cgroups


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of the hierarchy."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(cgroups, "root", lambda: fd)
    yield tmp_path
    os.close(fd)


def test_a_group_and_those_below_it(tree: Path) -> None:
    inner = tree / "a.slice" / "b.service"
    inner.mkdir(parents=True)
    ids = {cgroups.number("/a.slice"), cgroups.number("/a.slice/b.service")}
    assert set(cgroups.numbers_below("/a.slice")) == ids - {0}
    assert len(ids) == 2


def test_a_group_that_a_rule_names_before_it_exists(tree: Path) -> None:
    """Connections of others return all the same."""
    assert cgroups.numbers_below("/later.service") == ()

"""Lock files can't be opened by other users: locking a file needs no permission but to open it.
Indexes of interfaces are of one boot and network namespace."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.host import store as module
from ifdefault.host.store import GUARD, LOCK, Store
from ifdefault.model.host import State


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_lock_files_are_private(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / LOCK).touch(0o644)  # an earlier version's
    with store.lock(), store.timer_lock():
        assert mode(tmp_path / LOCK) == 0o600
        assert mode(tmp_path / GUARD) == 0o600
        assert store.has_timer()
    assert not store.has_timer()


def test_indexes_of_interfaces_end_with_their_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(groups={"wan0": (0, 171)}, links={"wan0": 3})
    Store(tmp_path).save(state)
    assert Store(tmp_path).load() == state
    monkeypatch.setattr(module, "network_id", lambda: "another")
    again = Store(tmp_path)
    assert again.load() == State(groups={"wan0": (0, 171)})
    again.save(state)  # though it looks like what is on the disk
    assert Store(tmp_path).load() == state

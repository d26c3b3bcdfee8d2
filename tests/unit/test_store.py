"""Lock files can't be opened by other users: locking a file needs no permission but to open it."""

from __future__ import annotations

from pathlib import Path

from ifdefault.host.store import GUARD, LOCK, Store


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

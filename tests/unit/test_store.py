"""Lock files can't be opened by other users: locking a file needs no permission but to open it.
Who holds one for too long is named. Indexes of interfaces are of one boot and network namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ifdefault.host import store as module
from ifdefault.host.saved_state import STATE
from ifdefault.host.store import GUARD, LOCK, Store
from ifdefault.model.errors import LockError
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


def test_the_limits_of_mptcp_outlive_the_state(tmp_path: Path) -> None:
    limits: dict[str, tuple[int, ...]] = {"subflows": (4, 8)}
    Store(tmp_path).save(State(groups={"wan0": (0, 171)}, limits=limits))
    for name in (STATE.name, STATE.copy):
        (tmp_path / name).unlink()
    assert Store(tmp_path).load() == State(limits=limits)


def test_who_holds_the_lock_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock():
        pass  # this process has signed it
    with flocked(tmp_path / LOCK) as pid, pytest.raises(LockError) as caught, store.lock():
        pass
    assert str(caught.value) == (
        f"{tmp_path / LOCK}: held by pid {pid}; try again later, or use --wait"
    )
    with store.lock(), pytest.raises(LockError, match=f"held by pid {os.getpid()} "), store.lock():
        pass


def test_waiting_for_the_lock_ends(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock():
        pass
    told = "for more than 0.1 s; end it if it hangs"
    with (
        flocked(tmp_path / LOCK) as pid,
        pytest.raises(LockError, match=f"pid {pid} {told}"),
        store.lock(wait=True, wait_s=0.1),
    ):
        pass
    with store.lock(wait=True):
        pass


@contextmanager
def flocked(path: Path) -> Iterator[int]:
    """Another process, not one of ours, holds a lock; its pid."""
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        " print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.kill()

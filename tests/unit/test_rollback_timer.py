"""What the rollback timer of `apply --confirm` reports; what it does is in tests/net."""

from __future__ import annotations

import os
import re
import subprocess
import syslog
import time
from pathlib import Path

import pytest

from ifdefault.cli import main
from ifdefault.daemon.event_log import SAVED, EventLog, saved_events
from ifdefault.host import rollback_timer
from ifdefault.host.rollback_timer import PENDING, Pending
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.store import HEALTH, LOCK, Store
from ifdefault.ipc.sd_notify import Notifier
from ifdefault.model.errors import HostError, KernelError, LockError
from ifdefault.model.kernel import Desired

UNDONE = "not confirmed: what ifdefault apply changed was undone"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _, text: lines.append(text))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(rollback_timer, "return_to", lambda *_: None)
    return lines


def wait_for_confirmation(store: Store, seconds: float = 0.0, token: str = "ours") -> None:
    store.write(PENDING, Pending(token, time.monotonic() + seconds, Desired(), {}))


def test_it_logs_that_it_undid(store: Store, logged: list[str]) -> None:
    wait_for_confirmation(store)
    rollback_timer.run(store, "ours")
    assert logged == [UNDONE]
    assert store.read(PENDING) is None
    assert store.read(SAVED) is None, "no daemon ever kept an event log"


def test_systemd_waits_until_others_see_it(
    store: Store, logged: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Until then they would take its file for void, and a countdown would say that it has ended."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(rollback_timer, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(rollback_timer, "_in_first_namespace", lambda: True)
    monkeypatch.setattr("shutil.which", str)
    monkeypatch.setattr(subprocess, "run", run)
    rollback_timer._start(store, "ours")
    assert "--property=Type=notify" in commands[0]

    seen: list[bool] = []
    monkeypatch.setattr(Notifier, "ready", lambda _: seen.append(store.has_timer()))
    wait_for_confirmation(store)
    rollback_timer.run(store, "ours")
    assert seen == [True]


def test_what_was_confirmed_is_not_logged(store: Store, logged: list[str]) -> None:
    rollback_timer.run(store, "ours")
    wait_for_confirmation(store, token="another's")
    rollback_timer.run(store, "ours")
    assert logged == []


def test_it_logs_that_it_failed(
    store: Store, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise KernelError("rule 5030: operation not permitted")

    monkeypatch.setattr(rollback_timer, "return_to", refuse)
    wait_for_confirmation(store)
    with pytest.raises(KernelError):
        rollback_timer.run(store, "ours")
    [line] = logged
    assert line.startswith("not confirmed, but undoing it failed: rule 5030: ")
    assert line.endswith("; run ifdefault down")


def test_events_shows_it_without_a_daemon_and_after_its_start(
    store: Store, logged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--state-dir", str(store.directory), "--run-dir", str(store.directory), "events"]
    assert main.run(where) == 1
    assert "no daemon runs" in capsys.readouterr().err
    event_log, routers = EventLog(store), RoutersSeen()
    event_log.note("engine", "stopped")
    saved = event_log.load(routers)
    event_log.save(saved, routers)

    wait_for_confirmation(store)
    rollback_timer.run(store, "ours")
    assert main.run([*where, "-n", "1"]) == 0
    told = capsys.readouterr()
    assert told.err == "no daemon runs: these events were saved\n"
    assert told.out.endswith(f"  apply     {UNDONE}\n")
    assert told.out.count("\n") == 1
    assert [event.text for event in saved_events(store) or ()] == ["stopped", UNDONE]
    successor = EventLog(store)
    assert successor.load(routers) == saved
    assert [event.kind for event in successor.recent(2)] == ["engine", "apply"]


def test_a_damaged_event_log_prevents_nothing(store: Store, logged: list[str]) -> None:
    (store.directory / HEALTH).write_text("{")
    wait_for_confirmation(store)
    rollback_timer.run(store, "ours")
    assert logged == [UNDONE]
    assert store.read(PENDING) is None


def test_how_long_is_left(store: Store) -> None:
    assert rollback_timer.left_s(store) is None
    wait_for_confirmation(store, 60.0)
    assert rollback_timer.left_s(store) is None, "its timer is gone, so it is void"
    with store.timer_lock():
        left_s = rollback_timer.left_s(store)
    assert left_s is not None
    assert 50 < left_s <= 60


def test_damage_to_its_file_neither_stops_it_nor_lets_another_apply_pass(
    store: Store, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(_: float) -> None:
        (store.directory / PENDING.name).write_text("{")
        with pytest.raises(HostError, match="is waiting for confirmation"), store.lock():
            rollback_timer.refuse_unconfirmed(store)
        assert rollback_timer.left_s(store) == 0.0
        late_s.append(100.0)

    late_s = [0.0]
    clock = time.monotonic
    monkeypatch.setattr("time.sleep", damage)
    monkeypatch.setattr("time.monotonic", lambda: clock() + late_s[-1])
    wait_for_confirmation(store, 60.0)
    rollback_timer.run(store, "ours")
    assert logged == [UNDONE]
    assert not (store.directory / PENDING.name).exists()


def test_what_is_void_and_damaged_is_set_aside(store: Store) -> None:
    (store.directory / PENDING.name).write_text("{")
    with store.lock():
        rollback_timer.refuse_unconfirmed(store)
    [news] = store.take_news()
    assert "set aside as undo.json.damaged-" in str(news)


def test_a_process_that_hangs_does_not_keep_it_from_undoing(
    store: Store, logged: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rollback_timer, "_LOCK_S", 0.1)
    wait_for_confirmation(store)
    with Store(store.directory).lock():
        lock = f"{store.directory / LOCK}: held by pid {os.getpid()} "
        rollback_timer.run(store, "ours")
        assert store.read(PENDING) is None
        [without, undone] = logged
        assert without.startswith(f"undoing without the lock: {lock}")
        assert without.endswith(" for more than 0.1 s; end it if it hangs")
        assert undone == UNDONE
        # what it decides is the timer's alone: to keep what was applied needs the lock
        wait_for_confirmation(store)
        with store.timer_lock(), pytest.raises(LockError, match=re.escape(lock)):
            rollback_timer.confirm(store, tmp_path / "c.toml")
        assert store.read(PENDING) is not None

"""The daemon's access to the host while another process holds the lock: its loop goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ifdefault.daemon import host as module
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.host import Host
from ifdefault.host.store import LOCK, Store
from ifdefault.model.config import Config
from ifdefault.model.errors import LockError

SAVE = f.SaveForced(7, "isp-a", "drain")
READ = ("observation",)


class Loop:
    """A host in a running loop, which keeps the events that it gets later."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        self.events: list[e.Event] = []
        self.host = Host(Store(directory), cast(Any, None), self.receive)

    def receive(self, event: e.Event) -> None:
        self.events.append(event)

    async def until(self, has_happened: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not has_happened():
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "observe", lambda *_, **__: READ)


def test_what_needs_the_lock_is_done_when_it_is_free(tmp_path: Path) -> None:
    async def main() -> None:
        loop = Loop(tmp_path)
        host = loop.host
        with loop.store.lock():
            look = host.look(f.Look(Config(())))
            assert isinstance(look, e.LookFailed), "a failover tries again"
            assert look.locked
            assert host.look(f.Look(Config(()), wait=True)) is None
            assert host.save_forced(SAVE) is None
            host.leave_group(f.LeaveGroup(os.getpid(), "/"))
            await asyncio.sleep(5 * module.RETRY_S)
            assert loop.events == []
            assert host.load_forced() == ()
        await loop.until(lambda: loop.events)
        observed, *others = loop.events
        assert isinstance(observed, e.Observed)
        assert others == [e.ForcedSaved(7), e.Woke()]
        assert host.load_forced() == (("isp-a", "drain"),)
        assert is_locked(loop.store), "until the turn ends"
        host.end_turn()
        assert not is_locked(loop.store)
        assert host.save_forced(SAVE) == e.ForcedSaved(7)

    asyncio.run(main())


def test_a_process_that_hangs_is_no_longer_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)

    async def main() -> None:
        loop = Loop(tmp_path)
        host = loop.host
        with loop.store.lock():
            assert host.save_forced(SAVE) is None
            await loop.until(lambda: loop.events)
            assert loop.events == [e.ForcedSaved(7), e.Woke()]
            host.end_turn()
            look = host.look(f.Look(Config(())))
            assert isinstance(look, e.Observed), "at once"
            host.end_turn()
            [problem] = host.problems
            assert problem.startswith(f"{tmp_path / LOCK}: held by pid {os.getpid()} ")
            assert problem.endswith(
                " for more than 0.2 s; the daemon goes on without it, end that process"
            )
        assert host.save_forced(SAVE) == e.ForcedSaved(7)
        assert host.problems == ()
        host.end_turn()

    asyncio.run(main())


def is_locked(store: Store) -> bool:
    try:
        with store.lock():
            return False
    except LockError:
        return True


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(24, "Too many open files"), "too many open files"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "internal error: UnicodeDecodeError"),
        (RecursionError("too deep"), "internal error: RecursionError: too deep"),
        (MemoryError(), "internal error: MemoryError"),
    ],
)
def test_a_look_fails_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def observe(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module, "observe", observe)
    failed = Loop(tmp_path).host.look(f.Look(Config(())))
    assert isinstance(failed, e.LookFailed)
    assert words in str(failed.problems[0])

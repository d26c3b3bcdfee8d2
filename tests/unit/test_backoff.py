"""How often a process that doesn't run is started, and what is logged of it."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from ifdefault.daemon.process.spawn import LONGEST_WAIT_S, SOUND_S, Backoff, Child


def test_a_process_that_ran_for_long_is_started_at_once_and_then_ever_later() -> None:
    backoff, now = Backoff(), 1000.0
    assert backoff.wait_s(now) == 0
    backoff.started(now)
    now += SOUND_S
    waits = []
    for _ in range(10):  # it can't be started any more
        waits.append(backoff.wait_s(now))
        now += waits[-1]
    assert waits == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    assert waits[-1] == LONGEST_WAIT_S


def test_each_cause_is_logged_once_until_it_has_run_for_long() -> None:
    backoff, now, logged = Backoff(), 1000.0, []
    for round_ in range(50):
        now += backoff.wait_s(now)
        cause = ("too many open files", "killed by signal 9")[round_ % 2]
        backoff.started(now)
        if backoff.is_news(cause, now + 1):
            logged.append(cause)
    assert logged == ["too many open files", "killed by signal 9"]
    backoff.wait_s(now)
    backoff.started(now)
    assert backoff.is_news("killed by signal 9", now + SOUND_S)


def test_a_child_whose_end_nobody_would_notice_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(pid: int) -> int:
        (tmp_path / "pid").write_text(str(pid))
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def start() -> None:
        monkeypatch.setattr("os.pidfd_open", refused)
        with pytest.raises(OSError, match="open files"):
            Child(["sleep", "1000"], {"PATH": "/usr/bin:/bin"}, lambda status: None)

    asyncio.run(start())
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()

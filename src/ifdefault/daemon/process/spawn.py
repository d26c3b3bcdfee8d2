"""Starts unprivileged processes, and notices when they end.

Rules: a process inherits only what is named here. It is reaped as soon as it ends (pidfd), even if
it left children running.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ifdefault.ipc import privileges

READY_S = 10.0
SOUND_S = 60.0  # after running for so long, a process is restarted without delay
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
_CAUSES = 16  # that are remembered
_PING_S = 2.0
_SILENT_S = 6.0  # without any message, a process is killed


class Child:
    """A child process. `ended(status)` is called once, on the loop; a negative status is a signal.

    With `session` it gets its own session, and thus its own process group.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: dict[str, str],
        ended: Callable[[int], None],
        *,
        fds: Sequence[int] = (),
        output: int | None = None,
        session: bool = False,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=fds,
            start_new_session=session,
        )
        self.pid = self._process.pid
        self._ended, self._session = ended, session
        self._has_ended = self._killed = False
        self._loop = asyncio.get_running_loop()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:  # out of files: nobody would notice its end
            self._signal(signal.SIGKILL)
            self._process.wait()
            raise
        self._loop.add_reader(self._pidfd, self._reap)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal it and its group; when it has ended, the rest of the group is killed."""
        self._killed = True
        if not self._has_ended:
            self._signal(number)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            (os.killpg if self._session else os.kill)(self.pid, number)

    def _reap(self) -> None:
        if self._killed and self._session:
            self._signal(signal.SIGKILL)  # before wait() makes the id available to others
        status = self._process.wait()
        self._has_ended = True
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended(status)


def status_text(status: int) -> str:
    """An exit status in words."""
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


class Pings:
    """When to ping a process, and whether it is silent for too long. Time in which this process was
    stopped itself doesn't count."""

    def __init__(self) -> None:
        self._pinged_s = self._heard_s = self._looked_s = 0.0

    def start(self, now: float) -> None:
        self._pinged_s = self._heard_s = self._looked_s = now

    def heard(self, now: float) -> None:
        self._heard_s = now

    def is_due(self, now: float) -> bool:
        """Whether to ping it now."""
        if now - self._pinged_s <= _PING_S:
            return False
        self._pinged_s = now
        return True

    def is_silent(self, now: float) -> bool:
        """Call it often. True once, and then only after another such silence."""
        if now - self._looked_s > _PING_S:  # its messages are waiting to be read
            self._heard_s = now
        self._looked_s = now
        if now - self._heard_s <= _SILENT_S:
            return False
        self._heard_s = now
        return True


class Backoff:
    """How long to wait before a process is started again, and whether to log why it ended, or
    didn't start: once for each cause, until it has run for SOUND_S."""

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._started_s: float | None = None
        self._causes: set[str] = set()

    def started(self, now: float) -> None:
        self._started_s = now

    def wait_s(self, now: float) -> float:
        """Before the next attempt: 0 at first and after it ran for SOUND_S, otherwise twice as long
        as the last time."""
        if self._ran(now):
            self._wait_s = 0.0
        self._started_s = None
        wait_s = self._wait_s
        self._wait_s = min(max(2 * wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
        return wait_s

    def is_news(self, cause: str, now: float) -> bool:
        """Whether to log this. To be called before `wait_s`."""
        if self._ran(now) or len(self._causes) >= _CAUSES:
            self._causes.clear()
        known = cause in self._causes
        self._causes.add(cause)
        return not known

    def _ran(self, now: float) -> bool:
        return self._started_s is not None and now - self._started_s >= SOUND_S


def privileges_kept(pid: int, uid: int) -> str:
    """Which privileges a process that should have dropped all has kept, according to /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")  # has its name
    except OSError as error:  # hidden: proc(5), hidepid; systemd.exec(5), ProtectProc
        return f"its privileges can't be checked: {error.filename}: {error.strerror}"
    left = privileges.left_over(status, uid)
    return f"it kept privileges: {', '.join(left)}" if left else ""

"""Starting processes without rights, and seeing them end: the frontend, and hooks.

Rules: nothing is inherited but what is named here; who was started is reaped as soon as it ends
(pidfd), whatever it left running. A frontend counts as started only when it says that it is ready
and /proc shows that it has no right left. It is ended when its channel ends, and its end is told
once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ifdefault.ipc import channel, privileges
from ifdefault.ipc.channel import Channel
from ifdefault.ipc.messages import (
    TO_ENGINE,
    Message,
    Outcome,
    Pong,
    Ready,
    Reply,
    Resolved,
    Served,
    ToEngine,
)
from ifdefault.model.errors import HostError

READY_S = 10.0
SOUND_S = 60.0  # a frontend that lived so long had no fault of its own
_GRACE_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the frontend may know of our environment: its Python, its authorities, its log.
_PASSED = ("LANG", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "JOURNAL_STREAM")
_PASSED_TLS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF")
Heard = Outcome | Resolved | Reply | Served | Pong
_LEAN = {"MALLOC_ARENA_MAX": "2"}  # threads that wait for resolvers need no memory of their own


class Child:
    """A process of ours. `ended(status)` is called once, on the loop; negative is a signal's.

    With `session` it has a session, and thus a process group, of its own.
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
        self._over = self._doomed = False
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal it and its group; when it ends, what is left of the group ends with it."""
        self._doomed = True
        if not self._over:
            self._signal(number)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            (os.killpg if self._session else os.kill)(self.pid, number)

    def _reap(self) -> None:
        if self._doomed and self._session:
            self._signal(signal.SIGKILL)  # before the id is free for others
        status = self._process.wait()
        self._over = True
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended(status)


def python(module: str, *arguments: str | int) -> list[str]:
    """The command that runs a module of ours; no directory but Python's own is looked into (-P)."""
    return [sys.executable, "-P", "-s", "-m", module, *map(str, arguments)]


def told(status: int) -> str:
    """An exit status in words."""
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


class Frontend:
    """A frontend that was started, and its channel. Use `start_frontend`."""

    def __init__(
        self,
        uid: int,
        gid: int,
        hear: Callable[[Heard], None],
        ended: Callable[[str], None],
        dropped: Callable[[Message], None],
    ) -> None:
        self._uid, self._hear_message, self._ended = uid, hear, ended
        self._cause = ""
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[str] = self._loop.create_future()
        ours, theirs = channel.pair()
        with theirs:
            command = python("ifdefault.frontend.main", theirs.fileno(), uid, gid)
            try:
                self._child = Child(command, environment(), self._reaped, fds=[theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        self.pid = self._child.pid
        self._channel: Channel[ToEngine] = Channel(
            ours, TO_ENGINE, self._hear, self._channel_ended, dropped=dropped
        )

    @property
    def drops(self) -> int:
        """Messages that it was too slow to take."""
        return self._channel.drops

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        self._channel.send(message, fds)

    def close(self) -> None:
        """End it: it goes by itself when the channel does, or is made to. `ended` isn't told."""
        self._ended = lambda cause: None
        self._cause = self._cause or "closed"
        self._channel.close()
        self._loop.call_later(_GRACE_S, self._child.kill)

    async def over(self) -> str:
        """Wait until it has ended; why."""
        return await asyncio.shield(self._over)

    def kill(self, cause: str) -> None:
        """End one that misbehaves."""
        self._cause = self._cause or cause
        self._channel.close()
        self._child.kill()

    def _channel_ended(self, cause: str) -> None:
        if cause:
            self.kill(cause)
        else:  # it is about to end; its status says more
            self._loop.call_later(_GRACE_S, self.kill, "it closed the channel")

    def _hear(self, message: ToEngine, _: object) -> None:
        if isinstance(message, Ready):
            self._verify()
        elif not self.ready.done():
            self.kill("it spoke before it was ready")
        else:
            self._hear_message(message)

    def _verify(self) -> None:
        """Believe /proc alone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError as error:  # hidden: proc(5), hidepid; systemd.exec(5), ProtectProc
            self.kill(f"its rights can't be seen: {error.filename}: {error.strerror}")
            return
        if left := privileges.left_over(status, self._uid):
            self.kill(f"it kept rights: {', '.join(left)}")
        elif not self.ready.done():
            self.ready.set_result(None)

    def _reaped(self, status: int) -> None:
        self._channel.close()
        cause = ", ".join(filter(None, (self._cause, told(status))))
        self._over.set_result(cause)
        if self.ready.done():
            self._ended(cause)
        else:
            self.ready.set_exception(HostError(f"the frontend didn't start: {cause}"))


async def start_frontend(
    user: tuple[int, int],
    hear: Callable[[Heard], None],
    ended: Callable[[str], None],
    dropped: Callable[[Message], None] = lambda message: None,
) -> Frontend:
    """Start a frontend as (uid, gid), see `privileges.choose_user`; HostError unless it gets ready.

    `ended(cause)` is told of its end, once, and only if it had started; `dropped(message)` of a
    Send that it was too slow to take.
    """
    frontend = Frontend(*privileges.possible(*user), hear, ended, dropped)
    try:
        async with asyncio.timeout(READY_S):
            await asyncio.shield(frontend.ready)
    except TimeoutError:
        frontend.kill(f"not ready after {READY_S:g} s")
        await frontend.ready
    except asyncio.CancelledError:
        frontend.ready.cancel()
        frontend.kill("nobody waits for it any more")
        frontend.close()
        raise
    return frontend


class Backoff:
    """How long to wait before the next start of what ended."""

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._started_s = float("-inf")

    def started(self, now: float) -> None:
        self._started_s = now

    def wait_s(self, now: float) -> float:
        """None after a long life, else twice as long as the last time."""
        if now - self._started_s >= SOUND_S:
            self._wait_s = 0.0
        wait_s = self._wait_s
        self._wait_s = min(max(2 * wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
        return wait_s


def environment() -> dict[str, str]:
    """What a process of ours is told: as little as its Python needs, and nothing of the user's."""
    passed = {name: os.environ[name] for name in _PASSED + _PASSED_TLS if name in os.environ}
    return {"PATH": _PATH} | passed | _LEAN

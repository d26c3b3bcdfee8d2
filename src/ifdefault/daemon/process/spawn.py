"""Starts unprivileged processes, the frontend and programs, and notices when they end.

Rules: a process inherits only what is named here. It is reaped as soon as it ends (pidfd), even if
it left children running. A frontend counts as started when it has sent Ready and /proc shows that
it has no privileges left. It is killed when its channel ends; its end is reported once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ifdefault.daemon.process.bounds import TOO_MANY_ANSWERS, Allowance, Owed
from ifdefault.daemon.process.output import Output
from ifdefault.ipc import channel, privileges
from ifdefault.ipc.channel import Channel
from ifdefault.ipc.messages import (
    FROM_FRONTEND,
    FromFrontend,
    Message,
    Outcome,
    Pong,
    Ready,
    Reply,
    Resolved,
    Unconfined,
)
from ifdefault.model.errors import HostError

READY_S = 10.0
SOUND_S = 60.0  # after running for so long, a process is restarted without delay
_GRACE_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
_CAUSES = 16  # that are remembered
_PING_S = 2.0
_SILENT_S = 6.0  # without any message, a process is killed
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The environment variables that are passed on: for Python, the CA certificates, the log.
_PASSED = ("LANG", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "JOURNAL_STREAM")
_PASSED_TLS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF")
_MOST_LINES = 1000  # of a frontend that aren't logged any more
FrontendMessage = Outcome | Resolved | Reply | Pong | Unconfined
_MALLOC = {"MALLOC_ARENA_MAX": "2"}  # resolver threads need no memory arenas of their own
_log = logging.getLogger("ifdefault")


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


def python(module: str, *arguments: str | int) -> list[str]:
    """The command that runs a module of ours; -P: imports from Python's own directories only."""
    return [sys.executable, "-P", "-s", "-m", module, *map(str, arguments)]


def status_text(status: int) -> str:
    """An exit status in words."""
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


class Frontend:
    """A frontend process and its channel. Use `start_frontend`."""

    def __init__(
        self,
        uid: int,
        gid: int,
        receive: Callable[[FrontendMessage], None],
        ended: Callable[[str], None],
        dropped: Callable[[Message], None],
        lines: Allowance,
    ) -> None:
        self._uid, self._receive, self._ended = uid, receive, ended
        self._cause = ""
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._owed, self._lines = Owed(), lines
        lines.refused = 0
        ours, theirs = channel.pair()
        self._output = Output(self._log_line)
        with theirs:
            fd, log_fd = theirs.fileno(), self._output.write_fd
            command, env = python("ifdefault.frontend.main", fd, uid, gid), _logging_to(log_fd)
            try:
                self._child = Child(command, env, self._reaped, fds=[fd], output=log_fd)
            except BaseException:
                ours.close()
                self._output.close()
                raise
            finally:
                self._output.started()
        self.pid = self._child.pid
        self._channel: Channel[FromFrontend] = Channel(
            ours, FROM_FRONTEND, self._on_message, self._channel_ended, dropped=dropped
        )

    @property
    def drops(self) -> int:
        """Messages dropped because it read too slowly."""
        return self._channel.drops

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        self._owed.ask(message)
        self._channel.send(message, fds)

    def close(self) -> None:
        """End it, without calling `ended`: it exits when the channel closes, or is killed."""
        self._ended = lambda cause: None
        self._cause = self._cause or "closed"
        self._channel.close()
        self._loop.call_later(_GRACE_S, self._child.kill)

    async def over(self) -> str:
        """Wait until it has ended; return the cause."""
        return await asyncio.shield(self._over)

    def kill(self, cause: str) -> None:
        """Kill it because it misbehaved."""
        self._cause = self._cause or cause
        self._channel.close()
        self._child.kill()

    def _channel_ended(self, cause: str) -> None:
        if cause:
            self.kill(cause)
        else:  # it is about to exit; its status says more
            self._loop.call_later(_GRACE_S, self.kill, "it closed the channel")

    def _on_message(self, message: FromFrontend, _: object) -> None:
        if isinstance(message, Ready):
            self._verify()
        elif not self.ready.done():
            self.kill("it sent a message before it was ready")
        elif isinstance(message, Unconfined) or self._owed.answer():
            self._receive(message)
        else:
            self.kill(TOO_MANY_ANSWERS)

    def _verify(self) -> None:
        if self.ready.done():
            self.kill("it was ready already")
        elif kept := privileges_kept(self.pid, self._uid):
            self.kill(kept)
        else:
            self.ready.set_result(None)

    def _log_line(self, text: str, lines: int) -> None:
        """Log what it writes to stderr: a line of ours (`log`), or of a traceback."""
        self._lines.refused += lines - 1
        if self._lines.take(self._loop.time()):
            level = {"<6>": logging.INFO, "<7>": logging.DEBUG}.get(text[:3], logging.WARNING)
            _log.log(level, "frontend: %s", text[3:] if text[:1] == "<" else text)
        elif self._lines.refused > _MOST_LINES:
            self._output.close()
            self.kill("it logs too much")

    def _reaped(self, status: int) -> None:
        self._channel.close()
        self._output.drain()
        cause = ", ".join(filter(None, (self._cause, status_text(status))))
        self._over.set_result(cause)
        if self.ready.done():
            self._ended(cause)
        else:
            self.ready.set_exception(HostError(f"the frontend didn't start: {cause}"))


async def start_frontend(
    user: tuple[int, int],
    receive: Callable[[FrontendMessage], None],
    ended: Callable[[str], None],
    dropped: Callable[[Message], None] = lambda message: None,
    lines: Allowance | None = None,
) -> Frontend:
    """Start a frontend as (uid, gid), see `privileges.choose_user`; HostError if it isn't ready in
    time.

    `ended(cause)` is called once when it ends, if it had started; `dropped(message)` for a Send
    that it was too slow to read. `lines`: how many it may log.
    """
    lines = lines or Allowance(_MOST_LINES, 1)
    frontend = Frontend(*privileges.possible(*user), receive, ended, dropped, lines)
    try:
        async with asyncio.timeout(READY_S):
            await asyncio.shield(frontend.ready)
    except TimeoutError:
        frontend.kill(f"not ready after {READY_S:g} s")
        await frontend.ready
    except asyncio.CancelledError:
        frontend.ready.cancel()
        frontend.kill("its start was cancelled")
        frontend.close()
        raise
    return frontend


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


def environment() -> dict[str, str]:
    """The environment of a child: what its Python needs, and nothing of the user's."""
    passed = {name: os.environ[name] for name in _PASSED + _PASSED_TLS if name in os.environ}
    return {"PATH": _PATH} | passed | _MALLOC


def _logging_to(fd: int) -> dict[str, str]:
    """The environment of a child whose log the engine reads, with the level of each line."""
    status = os.fstat(fd)
    return environment() | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

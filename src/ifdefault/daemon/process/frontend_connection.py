"""The engine's channel to a frontend, and the process at its other end.

    frontend.sock, systemd's ──> FrontendUnit    a process of its unit, for this connection
    otherwise ─────────────────> FrontendChild   a process of ours

Rules: a frontend counts as started when it has sent Ready and /proc shows that it has no privileges
left. It is killed when its channel ends; its end is reported once. The pid of systemd's process is
what Ready says: it is believed, and killed, only if it is in the unit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from ifdefault.daemon.process.bounds import TOO_MANY_ANSWERS, Allowance, Owed
from ifdefault.daemon.process.output import Output
from ifdefault.daemon.process.spawn import (
    READY_S,
    Child,
    privileges_kept,
    status_text,
)
from ifdefault.ipc import channel, privileges
from ifdefault.ipc.channel import Channel
from ifdefault.ipc.child import environment, python
from ifdefault.ipc.control.client import credentials
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
from ifdefault.model.errors import HostError, reason

UNIT = "frontend.sock"  # in the run directory; systemd listens there
_GRACE_S = 1.0
_MOST_LINES = 1000  # of a frontend that aren't logged, between two that are
_SYSTEMD = 1  # its pid
_CGROUP = "/ifdefault-frontend@"  # the unit, in /proc/PID/cgroup
_SEE = "see journalctl -u 'ifdefault-frontend@*'"
FrontendMessage = Outcome | Resolved | Reply | Pong | Unconfined
_log = logging.getLogger("ifdefault")


class FrontendChild:
    """A child process, whose log is part of ours. `ended(how)` is called once, `failed(cause)` if
    it has to be killed."""

    def __init__(
        self,
        user: tuple[int, int],
        lines: Allowance,
        ended: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._uid, self._lines, self._ended, self._failed = user[0], lines, ended, failed
        self._loop = asyncio.get_running_loop()
        lines.refused = 0
        self.sock, theirs = channel.pair()
        self._output = Output(self._log_line)
        with theirs:
            fd, log_fd = theirs.fileno(), self._output.write_fd
            command, env = python("ifdefault.frontend.main", fd, *user), _logging_to(log_fd)
            try:
                self._child = Child(command, env, self._reaped, fds=[fd], output=log_fd)
            except BaseException:
                self.sock.close()
                self._output.close()
                raise
            finally:
                self._output.started()
        self.pid = self._child.pid

    def verify(self, _: int) -> str:
        """What speaks against it, once it says that it is ready."""
        return privileges_kept(self.pid, self._uid)

    def kill(self) -> None:
        self._child.kill()

    def _log_line(self, text: str, lines: int) -> None:
        """Log what it writes to stderr: a line of ours (`log`), or of a traceback."""
        self._lines.refused += lines - 1
        if self._lines.take(self._loop.time()):
            if refused := self._lines.refused:
                self._lines.refused = 0
                _log.warning("frontend: %d more lines are not logged", refused)
            level = {"<6>": logging.INFO, "<7>": logging.DEBUG}.get(text[:3], logging.WARNING)
            _log.log(level, "frontend: %s", text[3:] if text[:1] == "<" else text)
        elif self._lines.refused > _MOST_LINES:
            self._output.close()
            self._failed("it logs too much")

    def _reaped(self, status: int) -> None:
        self._output.drain()
        self._ended(status_text(status))


class FrontendUnit:
    """A process that systemd starts for our connection to `path`, as the user of its unit. It is
    known from Ready on, and logs by its unit. `ended(how)` is called once."""

    def __init__(self, path: Path, uid: int, ended: Callable[[str], None]) -> None:
        """OSError if nothing listens there; HostError if that isn't systemd."""
        self._uid, self._ended = uid, ended
        self._loop = asyncio.get_running_loop()
        self.pid = 0
        self._pidfd = -1
        self._is_over = False
        self.sock = channel.connect(path)
        if (pid := credentials(self.sock).pid) != _SYSTEMD:
            self.sock.close()
            raise HostError(f"{path}: process {pid} listens there, not systemd; end it")

    def verify(self, pid: int) -> str:
        """What speaks against the process that says it is ready."""
        try:
            pidfd = os.pidfd_open(pid)  # first: what is read then is of this process
            with suppress(OSError):
                if _CGROUP in Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace"):
                    self.pid, self._pidfd = pid, pidfd
                    self._loop.add_reader(pidfd, self._over)
                    return privileges_kept(pid, self._uid)
            os.close(pidfd)
        except OSError as error:
            return f"process {pid}: {reason(error)}"
        return f"process {pid} isn't in its unit"

    def kill(self) -> None:
        """Kill it if it is known; else it ends with its channel, or with ifdefault.service."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        else:
            self._loop.call_soon(self._over)

    def _over(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if not self._is_over:
            self._is_over = True
            self._ended(_SEE)


class Frontend:
    """A frontend process and its channel. Use `start_frontend`."""

    def __init__(
        self,
        start: Callable[
            [Callable[[str], None], Callable[[str], None]], FrontendChild | FrontendUnit
        ],
        receive: Callable[[FrontendMessage], None],
        ended: Callable[[str], None],
        dropped: Callable[[Message], None],
    ) -> None:
        self._receive, self._ended = receive, ended
        self._cause = ""
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._owed = Owed()
        self._process = start(self._process_ended, self.kill)
        self._channel: Channel[FromFrontend] = Channel(
            self._process.sock,
            FROM_FRONTEND,
            self._on_message,
            self._channel_ended,
            dropped=dropped,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

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
        self._loop.call_later(_GRACE_S, self._process.kill)

    async def over(self) -> str:
        """Wait until it has ended; return the cause."""
        await asyncio.wait([self._over])
        return self._over.result()

    def kill(self, cause: str) -> None:
        """Kill it because it misbehaved."""
        self._cause = self._cause or cause
        self._channel.close()
        self._process.kill()

    def _channel_ended(self, cause: str) -> None:
        if cause:
            self.kill(cause)
        else:  # it is about to exit; its status says more
            self._loop.call_later(_GRACE_S, self.kill, "it closed the channel")

    def _on_message(self, message: FromFrontend, _: object) -> None:
        if isinstance(message, Ready):
            self._verify(message.pid)
        elif not self.ready.done():
            self.kill("it sent a message before it was ready")
        elif isinstance(message, Unconfined) or self._owed.answer():
            self._receive(message)
        else:
            self.kill(TOO_MANY_ANSWERS)

    def _verify(self, pid: int) -> None:
        if self.ready.done():
            self.kill("it was ready already")
        elif fault := self._process.verify(pid):
            self.kill(fault)
        else:
            self.ready.set_result(None)

    def _process_ended(self, how: str) -> None:
        self._channel.close()
        cause = ", ".join(filter(None, (self._cause, how)))
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
    unit: Path | None = None,
) -> Frontend:
    """Start a frontend as (uid, gid), see `privileges.choose_user`; HostError if it isn't ready in
    time.

    `ended(cause)` is called once when it ends, if it had started; `dropped(message)` for a Send
    that it was too slow to read. `lines`: how many it may log. `unit`: the socket of systemd that
    starts it, instead of a child; OSError if nothing listens there.
    """
    uid, gid = privileges.possible(*user)
    lines = lines or Allowance(_MOST_LINES, 1)
    start = partial(FrontendChild, (uid, gid), lines)
    frontend = Frontend(
        start if unit is None else lambda over, _: FrontendUnit(unit, uid, over),
        receive,
        ended,
        dropped,
    )
    try:
        if not (await asyncio.wait([frontend.ready], timeout=READY_S))[0]:
            frontend.kill(f"not ready after {READY_S:g} s")
            await asyncio.wait([frontend.ready])
    except asyncio.CancelledError:
        frontend.ready.cancel()
        frontend.kill("its start was cancelled")
        frontend.close()
        raise
    frontend.ready.result()
    return frontend


def _logging_to(fd: int) -> dict[str, str]:
    """The environment of a child whose log the engine reads, with the level of each line."""
    status = os.fstat(fd)
    return environment() | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

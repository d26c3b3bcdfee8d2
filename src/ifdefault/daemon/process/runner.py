"""Runs programs as unprivileged users, with a timeout, and logs their output.

Rules: the engine never waits for a program. A program has no privileges, no inherited descriptors,
and only the environment given here. At its timeout its whole process group is killed. Its output is
logged line by line, up to a limit. Of one key only one may run at a time, which the caller ensures.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ifdefault.daemon.process import spawn
from ifdefault.daemon.process.output import Output
from ifdefault.ipc.child import environment, python

LINES = 100
KILL_S = 1.0  # from SIGTERM to SIGKILL

Ended = Callable[[str, str], None]  # the problem, "" if none; the last line of its output


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A program to run: `what` is its name in the log; `command` drops its privileges itself."""

    key: Hashable
    what: str
    command: tuple[str, ...]
    env: dict[str, str]
    timeout_s: float


def stripped(user: tuple[int, int], program: str) -> tuple[str, ...]:
    """The command that runs a program without privileges, with only PATH and IFDEFAULT_… in its
    environment. `user`: as returned by privileges.possible."""
    return tuple(python("ifdefault.ipc.privileges", *user, program))


class Runner:
    """The running programs, at most `limit` at once."""

    def __init__(self, limit: int, log: logging.Logger) -> None:
        self._limit, self._log = limit, log
        self._running: dict[Hashable, _Run] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    @property
    def full(self) -> bool:
        return len(self._running) >= self._limit

    def start(self, request: RunRequest, ended: Ended) -> None:
        """Run it now, or raise OSError; `ended` is called when it has ended."""

        def on_end(problem: str, last_line: str) -> None:
            del self._running[request.key]
            ended(problem, last_line)
            if not self._running:
                self._idle.set()

        self._running[request.key] = _Run(request, self._log, on_end)
        self._idle.clear()

    async def close(self) -> None:
        """End all running programs."""
        for run in self._running.values():
            run.stop()
        await self._idle.wait()


class _Run:
    """One running program."""

    def __init__(self, request: RunRequest, log: logging.Logger, ended: Ended) -> None:
        self._request, self._log, self._on_end = request, log, ended
        self._loop = asyncio.get_running_loop()
        self._lines, self._timed_out, self._last_line = 0, False, ""
        self._output = Output(self._log_line)
        try:
            self._child = spawn.Child(
                request.command,
                environment() | request.env,
                self._ended,
                output=self._output.write_fd,
                session=True,
            )
        except BaseException:
            self._output.close()
            raise
        finally:
            self._output.started()
        self._timer = self._loop.call_later(request.timeout_s, self._on_timeout)

    def stop(self) -> None:
        """SIGTERM, and after KILL_S SIGKILL."""
        self._timer.cancel()
        self._child.kill(signal.SIGTERM)
        self._timer = self._loop.call_later(KILL_S, self._child.kill)

    def _on_timeout(self) -> None:
        self._timed_out = True
        self.stop()

    def _ended(self, status: int) -> None:
        self._timer.cancel()
        self._output.drain()
        if self._lines > LINES:
            self._log.info("%s: %d more lines", self._request.what, self._lines - LINES)
        if self._timed_out:
            problem = f"killed after {self._request.timeout_s:g} s (timeout)"
        else:
            problem = spawn.status_text(status) if status else ""
        self._on_end(problem, self._last_line)

    def _log_line(self, text: str, lines: int) -> None:
        self._lines += lines
        self._last_line = text or self._last_line
        if self._lines <= LINES:
            self._log.info("%s: %s", self._request.what, text)

"""Programs that the engine runs as users without rights, and their ends.

Rules: nothing waits for a program. It gets no right, no descriptor and no environment but what is
named here; it is ended at its timeout, with its whole process group. What it says is logged, a
line each, as far as it is bounded. Those of one key run one after another: whoever starts them
asks first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ifdefault.daemon.process import spawn
from ifdefault.ipc.messages import printable

LINES, LINE_CHARS = 100, 500
KILL_S = 1.0  # from SIGTERM to SIGKILL

Ended = Callable[[str, str], None]  # what went wrong, "" if nothing; and its last words


@dataclass(frozen=True, slots=True)
class Order:
    """What to run: `what` is its name in the log, `command` gives up its rights by itself."""

    key: Hashable
    what: str
    command: tuple[str, ...]
    env: dict[str, str]
    timeout_s: float


def stripped(user: tuple[int, int], program: str) -> tuple[str, ...]:
    """The command of a program that is to have no right, and of the environment only IFDEFAULT_…
    and PATH. `user` is of privileges.possible."""
    return tuple(spawn.python("ifdefault.ipc.privileges", *user, program))


class Runs:
    """All that run, at most so many at once."""

    def __init__(self, most: int, log: logging.Logger) -> None:
        self._most, self._log = most, log
        self._running: dict[Hashable, _Run] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    @property
    def full(self) -> bool:
        return len(self._running) >= self._most

    def start(self, order: Order, ended: Ended) -> None:
        """Run it now, or raise OSError; `ended` is told how it ended."""

        def over(problem: str, last_words: str) -> None:
            del self._running[order.key]
            ended(problem, last_words)
            if not self._running:
                self._idle.set()

        self._running[order.key] = _Run(order, self._log, over)
        self._idle.clear()

    async def close(self) -> None:
        """End those that run."""
        for run in self._running.values():
            run.stop()
        await self._idle.wait()


class _Run:
    """One program that runs."""

    def __init__(self, order: Order, log: logging.Logger, ended: Ended) -> None:
        self._order, self._log, self._tell_ended = order, log, ended
        self._loop = asyncio.get_running_loop()
        self._rest, self._lines, self._hung, self._last_words = b"", 0, False, ""
        self._pipe, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(theirs, True)
            self._child = spawn.Child(
                order.command,
                spawn.environment() | order.env,
                self._ended,
                output=theirs,
                session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)
        self._loop.add_reader(self._pipe, self._read)
        self._timer = self._loop.call_later(order.timeout_s, self._hangs)

    def stop(self) -> None:
        """Ask it to end, then end it."""
        self._timer.cancel()
        self._child.kill(signal.SIGTERM)
        self._timer = self._loop.call_later(KILL_S, self._child.kill)

    def _hangs(self) -> None:
        self._hung = True
        self.stop()

    def _ended(self, status: int) -> None:
        self._timer.cancel()
        while self._read():
            pass
        self._close_pipe()
        if self._rest:
            self._say(self._rest)
        if self._lines > LINES:
            self._log.info("%s: %d more lines", self._order.what, self._lines - LINES)
        if self._hung:
            problem = f"hung and was ended after {self._order.timeout_s:g} s"
        else:
            problem = spawn.told(status) if status else ""
        self._tell_ended(problem, self._last_words)

    def _read(self) -> bool:
        """Log what it says; whether there may be more."""
        try:
            data = os.read(self._pipe, 65536) if self._pipe >= 0 else b""
        except BlockingIOError:
            return False
        if not data:
            self._close_pipe()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[: 4 * LINE_CHARS]
        for line in lines:
            self._say(line)
        return True

    def _say(self, line: bytes) -> None:
        self._lines += 1
        text = printable(line[: 4 * LINE_CHARS].decode(errors="replace"), LINE_CHARS)
        self._last_words = text or self._last_words
        if self._lines <= LINES:
            self._log.info("%s: %s", self._order.what, text)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

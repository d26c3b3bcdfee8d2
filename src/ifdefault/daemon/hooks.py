"""Hooks: an executable of the operator's for each event, as a user of its own.

Rules: nothing waits for a hook, and none can hold up another path's: at most RUNNING run at once,
WAITING wait, then the oldest is dropped and that is logged. Those of one path run one after
another, so that the last event has the last word. A hook gets no right, no descriptor and no
environment but what is named here; it is ended at its timeout, with its whole process group. What
it says is logged, a line each, as far as it is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ifdefault.daemon import privileges, spawn
from ifdefault.daemon.messages import printable
from ifdefault.errors import Problem
from ifdefault.model import Config

RUNNING, WAITING = 8, 64
LINES, LINE_CHARS = 100, 500
KILL_S = 1.0  # from SIGTERM to SIGKILL
FIELDS = ("uplink", "family", "was", "state", "cause")


@dataclass(frozen=True, slots=True)
class _Call:
    event: str
    program: str
    timeout_s: float
    user: tuple[int, int]
    env: tuple[tuple[str, str], ...]
    key: tuple[str, ...]  # those of one key run one after another

    def __str__(self) -> str:
        return f"hook {self.event} ({self.program})"


class Hooks:
    def __init__(self, config: Config, log: logging.Logger | None = None) -> None:
        self._log = log or logging.getLogger("ifdefault")
        self._waiting: deque[_Call] = deque()
        self._running: dict[tuple[str, ...], _Run] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.config = config

    @property
    def config(self) -> Config:
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        """Take in another config; what runs and waits goes on as it was told."""
        self._config = config
        uid, gid, warning = privileges.choose_user(config.daemon.hook_user)
        self._user = privileges.possible(uid, gid)
        hooks = config.hooks
        if warning and any((hooks.up, hooks.degraded, hooks.down, hooks.default)):
            self._log.warning("%s", Problem("daemon.hook_user", warning))

    def fire(self, event: str, **fields: str) -> None:
        """Run the hook of an event, if there is one, soon. `fields` are some of FIELDS."""
        if event not in ("up", "degraded", "down", "default"):
            return
        hooks = self._config.hooks
        program: str = getattr(hooks, event)
        if not program:
            return
        told = {"event": event} | dict.fromkeys(FIELDS, "") | fields
        env = tuple((f"IFDEFAULT_{k.upper()}", printable(v, LINE_CHARS)) for k, v in told.items())
        path = () if event == "default" else (told["uplink"],)
        key = (*path, told["family"])
        self._waiting.append(_Call(event, program, hooks.timeout_s, self._user, env, key))
        self._start()
        if len(self._waiting) > WAITING:
            self._log.warning("%s is dropped: %d others wait", self._waiting.popleft(), WAITING)

    @property
    def busy(self) -> bool:
        return bool(self._running or self._waiting)

    async def close(self) -> None:
        """End those that run; those that wait are forgotten."""
        self._waiting.clear()
        for run in self._running.values():
            run.stop()
        await self._idle.wait()

    def _start(self) -> None:
        for call in list(self._waiting):
            if len(self._running) >= RUNNING:
                return
            if call.key in self._running:
                continue
            self._waiting.remove(call)
            try:
                self._running[call.key] = _Run(call, self._log, self._ended)
            except OSError as error:
                self._log.warning(
                    "%s can't be run: %s", call, os.strerror(error.errno or 0).lower()
                )
                continue
            self._idle.clear()

    def _ended(self, call: _Call) -> None:
        del self._running[call.key]
        self._start()
        if not self._running:
            self._idle.set()


class _Run:
    """One hook that runs."""

    def __init__(self, call: _Call, log: logging.Logger, ended: Callable[[_Call], None]) -> None:
        self._call, self._log, self._tell_ended = call, log, ended
        self._loop = asyncio.get_running_loop()
        self._rest, self._lines, self._hung = b"", 0, False
        self._pipe, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(theirs, True)
            self._child = spawn.Child(
                spawn.python("ifdefault.daemon.privileges", *call.user, call.program),
                spawn.environment() | dict(call.env),
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
        self._timer = self._loop.call_later(call.timeout_s, self._hangs)

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
            self._log.info("%s: %d more lines", self._call, self._lines - LINES)
        if self._hung:
            text = "%s hung and was ended after %g s"
            self._log.warning(text, self._call, self._call.timeout_s)
        elif status:
            self._log.warning("%s: %s", self._call, spawn.told(status))
        self._tell_ended(self._call)

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
        if self._lines <= LINES:
            text = line[: 4 * LINE_CHARS].decode(errors="replace")
            self._log.info("%s: %s", self._call, printable(text, LINE_CHARS))

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

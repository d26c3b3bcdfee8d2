"""The engine's end of the frontend: starts it, exchanges messages, and restarts it when it ends.

Rules: systemd starts it in a unit of its own, if that is installed; otherwise it is a child. The
engine never waits for the frontend. A frontend that sends an invalid message, or answers
no ping, is killed and restarted. While none is running no probes are sent, so no uplink is blamed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.bounds import TOO_MANY_ANSWERS, Allowance
from ifdefault.daemon.process.frontend_connection import (
    UNIT,
    Frontend,
    FrontendMessage,
    start_frontend,
)
from ifdefault.daemon.process.spawn import Backoff, Pings
from ifdefault.ipc import privileges, tasks
from ifdefault.ipc.messages import (
    Message,
    Outcome,
    Ping,
    Pong,
    Reply,
    Resolve,
    Resolved,
    Send,
    Unconfined,
)
from ifdefault.model.config import DaemonConfig, Severity
from ifdefault.model.errors import HostError, reason

_RESOLVE_S = 300.0  # between lookups of a name
_LINES, _LINES_PER_S = 100, 0.1  # of all frontends in the log: at once, and in the long run
_RESOLVE_AGAIN_S = 15.0  # while it has no address
_UNIT_AGAIN_S = 60.0  # after it didn't start
_CANT_START = "the frontend can't be started: "


@dataclass(frozen=True, slots=True)
class Started:
    """A new frontend is running. It has no sockets, names or zones yet."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The frontend ended."""


FrontendEvent = Started | Ended | Outcome | Resolved | Reply


class FrontendProcess:
    """`notify` is called with the frontend's messages, and when it starts and ends."""

    def __init__(
        self,
        run_dir: Path,
        config: DaemonConfig,
        event_log: EventLog,
        notify: Callable[[FrontendEvent], None],
    ) -> None:
        self._unit, self._unit_due_s = run_dir / UNIT, 0.0  # when to try it
        self._event_log, self._notify = event_log, notify
        *self._user, self._warning = privileges.choose_user(config.user)
        self._frontend: Frontend | None = None
        self._task: asyncio.Task[None] | None = None
        self._tokens = count(1)
        self._pings = Pings()
        self._resolve_due: dict[str, float] = {}  # by name
        self._looked_up: set[str] = set()  # names whose answers are awaited
        self._unconfined: tuple[str, ...] = ()
        self._has_said = False  # the frontend that runs, what it isn't confined by
        self._lines = Allowance(_LINES, _LINES_PER_S)
        self.starts = 0

    @property
    def ready(self) -> bool:
        return self._frontend is not None

    @property
    def own_uid(self) -> int:
        """The user that only our processes run as, -1 if that is nobody's."""
        return -1 if self._warning else self._user[0]

    @property
    def problems(self) -> tuple[str, ...]:
        restarts = self.starts - 1
        problems = [f"daemon.user: {self._warning}"] if self._warning else []
        if not self.ready:
            problems.append("the frontend is not running; no probes are sent")
        elif restarts > 0:
            times = "once" if restarts == 1 else f"{restarts} times"
            problems.append(f"the frontend was restarted {times}")
        return tuple(problems)

    def start(self) -> None:
        """Keep a frontend running from now on."""
        if self._warning:
            self._event_log.note("frontend", f"daemon.user: {self._warning}", severity="warning")
        self._task = tasks.start(self._keep_running())

    async def close(self) -> None:
        if self._task is not None:
            await tasks.end(self._task)

    def post(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send a message to the frontend, if one is running."""
        if self._frontend is not None:
            self._frontend.send(message, fds)

    def resolve(self, hosts: Iterable[str]) -> None:
        """Look up those of these names that are due."""
        now = time.monotonic()
        for host in hosts:
            if self.ready and now >= self._resolve_due.get(host, 0.0):
                self._resolve_due[host] = now + _RESOLVE_AGAIN_S
                self._looked_up.add(host)
                self.post(Resolve(host))

    def answers(self, now: float) -> bool:
        """Whether the frontend responds, or is being restarted; kills one that doesn't respond."""
        frontend = self._frontend
        if frontend is None:
            return self._task is not None and not self._task.done()
        if self._pings.is_silent(now):
            frontend.kill("it no longer responds")
        elif self._pings.is_due(now):
            frontend.send(Ping(next(self._tokens)))
        return True

    async def _keep_running(self) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(backoff.wait_s(time.monotonic()))
            ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                frontend = await self._start(backoff, ended.set_result)
            except (HostError, OSError) as error:  # OSError: out of processes or files
                text = str(error) if isinstance(error, HostError) else _CANT_START + reason(error)
                self._log_once(backoff, text)
                continue
            now = time.monotonic()
            backoff.started(now)
            self._frontend = frontend
            self._pings.start(now)
            self._resolve_due.clear()
            self._looked_up.clear()
            self.starts += 1
            try:
                self._notify(Started())
                cause = await ended
            finally:
                self._frontend, self._has_said = None, False
                frontend.close()
                self._notify(Ended())
            self._log_once(backoff, f"the frontend ended: {cause}")

    async def _start(self, backoff: Backoff, ended: Callable[[str], None]) -> Frontend:
        """In its unit, or else as a child."""
        user = self._user[0], self._user[1]
        start = partial(start_frontend, user, self._receive, ended, self._dropped, self._lines)
        if time.monotonic() >= self._unit_due_s:
            try:
                return await start(unit=self._unit)
            except FileNotFoundError:  # it isn't installed
                pass
            except (HostError, OSError) as error:
                self._unit_due_s = time.monotonic() + _UNIT_AGAIN_S
                cause = str(error) if isinstance(error, HostError) else reason(error)
                text = f"the frontend can't run in its unit: {cause}"
                self._log_once(backoff, text, "warning")
        return await start()

    def _log_once(self, backoff: Backoff, cause: str, severity: Severity = "error") -> None:
        """Unless it is the cause of the last time, too; `problems` has the number of restarts."""
        if backoff.is_news(cause, time.monotonic()):
            self._event_log.note("frontend", cause, severity=severity)

    def _receive(self, message: FrontendMessage) -> None:
        now = time.monotonic()
        self._pings.heard(now)
        match message:
            case Pong():
                return
            case Unconfined(missing):
                self._note_unconfined(missing)
                return
            case Resolved(host, addresses):
                if host not in self._looked_up:  # nobody asked for it
                    return
                self._looked_up.remove(host)
                if addresses:
                    self._resolve_due[host] = now + _RESOLVE_S
        self._notify(message)

    def _note_unconfined(self, missing: tuple[str, ...]) -> None:
        """Log it once, not each time that a frontend starts. Each may say it once."""
        if self._has_said:
            if self._frontend is not None:
                self._frontend.kill(TOO_MANY_ANSWERS)
            return
        self._has_said = True
        if missing != self._unconfined:
            text = f"the frontend runs without {' and '.join(missing)}"
            self._event_log.note("frontend", text, severity="warning")
        self._unconfined = missing

    def _dropped(self, message: Message) -> None:
        """A probe that the frontend was too slow to read was never sent."""
        if isinstance(message, Send):
            self._notify(Outcome(message.path, message.seq, "local"))

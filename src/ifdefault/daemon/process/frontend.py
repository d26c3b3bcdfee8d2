"""The engine's end of the frontend: starts it, speaks to it, and starts it again when it dies.

Rules: the engine never waits for the frontend. One that says what it may not, or answers no ping,
is ended, and a new one started. While there is none nothing is asked, so that nothing is held
against any uplink.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.spawn import Backoff, Frontend, Heard, start_frontend
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import (
    Message,
    Outcome,
    Ping,
    Pong,
    Reply,
    Resolve,
    Resolved,
    Send,
    Served,
)
from ifdefault.model.config import DaemonConfig
from ifdefault.model.errors import HostError

_RESOLVE_S = 300.0  # a name's addresses are asked for so often
_RESOLVE_AGAIN_S = 15.0  # while it has none
_PING_S = 2.0
_DEAF_S = 6.0


@dataclass(frozen=True, slots=True)
class Started:
    """A new frontend is there, which knows nothing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """It is gone."""


News = Started | Ended | Outcome | Resolved | Reply | Served


class FrontendProcess:
    """`tell` hears what the frontend says, and of its start and end."""

    def __init__(
        self, config: DaemonConfig, event_log: EventLog, tell: Callable[[News], None]
    ) -> None:
        self._event_log, self._tell = event_log, tell
        *self._user, self._warning = privileges.choose_user(config.user)
        self._frontend: Frontend | None = None
        self._task: asyncio.Task[None] | None = None
        self._tokens = count(1)
        self._pinged_s = 0.0
        self._heard_s = 0.0
        self._asked_names: dict[str, float] = {}  # when to ask again
        self.starts = 0

    @property
    def ready(self) -> bool:
        return self._frontend is not None

    @property
    def problems(self) -> tuple[str, ...]:
        restarts = self.starts - 1
        found = [f"daemon.user: {self._warning}"] if self._warning else []
        if not self.ready:
            found.append("the frontend doesn't run, nothing is probed")
        elif restarts > 0:
            found.append(f"the frontend was restarted {restarts} times")
        return tuple(found)

    def start(self) -> None:
        """Keep a frontend running from now on."""
        if self._warning:
            self._event_log.note("frontend", f"daemon.user: {self._warning}", level=logging.WARNING)
        self._task = asyncio.create_task(self._keep_running())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def post(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Tell the frontend, if there is one."""
        if self._frontend is not None:
            self._frontend.send(message, fds)

    def resolve(self, hosts: Iterable[str]) -> None:
        """See to it that these names' addresses are known, and stay fresh."""
        now = time.monotonic()
        for host in hosts:
            if self.ready and now >= self._asked_names.get(host, 0.0):
                self._asked_names[host] = now + _RESOLVE_AGAIN_S
                self.post(Resolve(host))

    def answers(self, now: float) -> bool:
        """Whether the frontend lives, as far as one knows; ends one that doesn't answer."""
        frontend = self._frontend
        if frontend is None:
            return self._task is not None and not self._task.done()
        if now - self._pinged_s > _PING_S:
            self._pinged_s = now
            frontend.send(Ping(next(self._tokens)))
        if now - self._heard_s > _DEAF_S:
            self._heard_s = now
            frontend.kill("it answers no more")
        return True

    async def _keep_running(self) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(backoff.wait_s(time.monotonic()))
            ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                frontend = await start_frontend(
                    (self._user[0], self._user[1]), self._hear, ended.set_result, self._dropped
                )
            except (HostError, OSError) as error:  # OSError: no process or file to be had
                self._event_log.note("frontend", str(error), level=logging.ERROR)
                continue
            now = time.monotonic()
            backoff.started(now)
            self._frontend, self._heard_s, self._pinged_s = frontend, now, now
            self._asked_names.clear()
            self.starts += 1
            try:
                self._tell(Started())
                cause = await ended
            finally:
                self._frontend = None
                frontend.close()
                self._tell(Ended())
            self._event_log.note("frontend", f"the frontend ended: {cause}", level=logging.ERROR)

    def _hear(self, message: Heard) -> None:
        self._heard_s = time.monotonic()
        match message:
            case Pong():
                return  # it was heard, which is what it is for
            case Resolved(host, addresses) if addresses:
                self._asked_names[host] = self._heard_s + _RESOLVE_S
        self._tell(message)

    def _dropped(self, message: Message) -> None:
        """What the frontend was too slow to take was never asked."""
        if isinstance(message, Send):
            self._tell(Outcome(message.path, message.seq, "local"))

"""Hooks: the operator's executable for each event, run as a separate user.

Rules: nothing waits for a hook. At most RUNNING hooks run at once and WAITING wait; beyond that the
oldest is dropped, which is logged. Hooks of one path run one after another, so that the last event
is handled last.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial

from ifdefault.daemon.process.output import LINE_CHARS
from ifdefault.daemon.process.runner import Runner, RunRequest, stripped
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import printable
from ifdefault.model.config import Config
from ifdefault.model.errors import Problem, reason

RUNNING, WAITING = 8, 64
FIELDS = ("uplink", "family", "was", "state", "cause")


class Hooks:
    def __init__(self, config: Config, log: logging.Logger | None = None) -> None:
        self._log = log or logging.getLogger("ifdefault")
        self._waiting: deque[RunRequest] = deque()
        self._runner = Runner(RUNNING, self._log)
        self.config = config

    @property
    def config(self) -> Config:
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        """Use another config from now on, except for hooks that run or wait."""
        self._config = config
        uid, gid, warning = privileges.choose_user(config.daemon.hook_user)
        self._user = privileges.possible(uid, gid)
        hooks = config.hooks
        if warning and any((hooks.up, hooks.degraded, hooks.down, hooks.primary)):
            self._log.warning("%s", Problem("daemon.hook_user", warning))

    def fire(self, event: str, **fields: str) -> None:
        """Run the hook of an event, if one is configured, as soon as possible. `fields`: some of
        FIELDS."""
        if event not in ("up", "degraded", "down", "primary"):
            return
        hooks = self._config.hooks
        program: str = getattr(hooks, event)
        if not program:
            return
        values = {"event": event} | dict.fromkeys(FIELDS, "") | fields
        env = {f"IFDEFAULT_{k.upper()}": printable(v, LINE_CHARS) for k, v in values.items()}
        path = () if event == "primary" else (values["uplink"],)
        key, what = (*path, values["family"]), f"hook {event} ({program})"
        command = stripped(self._user, program)
        self._waiting.append(RunRequest(key, what, command, env, hooks.timeout_s))
        self._start()
        if len(self._waiting) > WAITING:
            dropped = self._waiting.popleft().what
            self._log.warning("%s: dropped: %d others are waiting", dropped, WAITING)

    async def close(self) -> None:
        """End the running hooks, and drop the waiting ones."""
        self._waiting.clear()
        await self._runner.close()

    def _start(self) -> None:
        for request in list(self._waiting):
            if self._runner.full:
                return
            if request.key in self._runner:
                continue
            self._waiting.remove(request)
            try:
                self._runner.start(request, partial(self._ended, request))
            except OSError as error:
                why = reason(error)
                self._log.warning("%s: can't be run: %s", request.what, why)

    def _ended(self, request: RunRequest, problem: str, _: str) -> None:
        if problem:
            self._log.warning("%s: %s", request.what, problem)
        self._start()

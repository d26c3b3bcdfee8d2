"""Hooks: an executable of the operator's for each event, as a user of its own.

Rules: nothing waits for a hook, and none can hold up another path's: at most RUNNING run at once,
WAITING wait, then the oldest is dropped and that is logged. Those of one path run one after
another, so that the last event has the last word.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial

from ifdefault.daemon.process.runner import LINE_CHARS, Order, Runs, stripped
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import printable
from ifdefault.model.config import Config
from ifdefault.model.errors import Problem, reason

RUNNING, WAITING = 8, 64
FIELDS = ("uplink", "family", "was", "state", "cause")


class Hooks:
    def __init__(self, config: Config, log: logging.Logger | None = None) -> None:
        self._log = log or logging.getLogger("ifdefault")
        self._waiting: deque[Order] = deque()
        self._runs = Runs(RUNNING, self._log)
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
        if warning and any((hooks.up, hooks.degraded, hooks.down, hooks.primary)):
            self._log.warning("%s", Problem("daemon.hook_user", warning))

    def fire(self, event: str, **fields: str) -> None:
        """Run the hook of an event, if there is one, soon. `fields` are some of FIELDS."""
        if event not in ("up", "degraded", "down", "primary"):
            return
        hooks = self._config.hooks
        program: str = getattr(hooks, event)
        if not program:
            return
        told = {"event": event} | dict.fromkeys(FIELDS, "") | fields
        env = {f"IFDEFAULT_{k.upper()}": printable(v, LINE_CHARS) for k, v in told.items()}
        path = () if event == "primary" else (told["uplink"],)
        key, what = (*path, told["family"]), f"hook {event} ({program})"
        command = stripped(self._user, program)
        self._waiting.append(Order(key, what, command, env, hooks.timeout_s))
        self._start()
        if len(self._waiting) > WAITING:
            dropped = self._waiting.popleft().what
            self._log.warning("%s is dropped: %d others wait", dropped, WAITING)

    async def close(self) -> None:
        """End those that run; those that wait are forgotten."""
        self._waiting.clear()
        await self._runs.close()

    def _start(self) -> None:
        for order in list(self._waiting):
            if self._runs.full:
                return
            if order.key in self._runs:
                continue
            self._waiting.remove(order)
            try:
                self._runs.start(order, partial(self._ended, order))
            except OSError as error:
                why = reason(error)
                self._log.warning("%s can't be run: %s", order.what, why)

    def _ended(self, order: Order, problem: str, _: str) -> None:
        if problem:
            self._log.warning("%s: %s", order.what, problem)
        self._start()

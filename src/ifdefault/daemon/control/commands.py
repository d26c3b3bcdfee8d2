"""What the operator asks of the engine, over the control socket or by a signal.

Rules: a new config is taken whole or refused whole, and the old one goes on. What is asked for
an uplink is on disk before it is answered, and so outlives a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, cast, get_args

from ifdefault.config import read as read_config
from ifdefault.daemon.control.protocol import (
    Changes,
    Confirm,
    Confirmed,
    Down,
    Entered,
    EventList,
    Events,
    Exec,
    Reload,
    Reply,
    Request,
    SetUplink,
    Status,
    UplinkChanged,
)
from ifdefault.daemon.control.server import Peer
from ifdefault.daemon.status import DaemonStatus
from ifdefault.host import exec_groups
from ifdefault.model.config import Config
from ifdefault.model.errors import HostError, IfdefaultError, Problem
from ifdefault.model.health import Decision, Forced

if TYPE_CHECKING:
    from ifdefault.daemon.engine import Engine

_UNDO_AGAIN_S = 1.0


class Operator:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._probation: asyncio.TimerHandle | None = None

    async def answer(self, request: Request, peer: Peer) -> Reply:
        match request:
            case Status():
                return self.standing()
            case Events(limit):
                return EventList(self._engine.event_log.recent(limit))
            case SetUplink(name, state):
                return self._force(name, state)
            case Reload(confirm_s):
                return self.reload(confirm_s)
            case Confirm():
                return self._confirm()
            case Down():
                return self._down()
            case Exec(uplink, netns):
                return self._exec(peer, uplink, netns)

    def standing(self) -> DaemonStatus:
        engine = self._engine
        now = time.monotonic()
        left = (
            f"undone in {self._probation.when() - now:.0f} s unless confirmed"
            if self._probation
            else ""
        )
        return DaemonStatus(
            pid=os.getpid(),
            up_s=now - engine.governor.started_s,
            now_s=now,
            config=str(engine.config_path),
            health=engine.paths.health(),
            decision=engine.governor.decision or Decision(),
            forced=dict(engine.governor.forced),
            held=engine.governor.keeper.held or left,
            fights=engine.governor.keeper.fights.told(now),
            problems=(
                *map(str, engine.governor.keeper.prepared.lacks),
                *engine.governor.refused,
                *engine.frontend_process.problems,
                *engine.paths.problems,
            ),
            rates=dict(engine.evidence.rates),
            dns=engine.publisher.standing(problems=engine.discovery.problems),
            contents=engine.contents.standing(),
        )

    # --- an uplink's forced state ---------------------------------------------------------

    def load_forced(self) -> dict[str, Forced]:
        known = get_args(Forced)
        told = self._engine.store.load().forced
        return {name: cast(Forced, state) for name, state in told.items() if state in known}

    def _force(self, name: str, state: Forced) -> UplinkChanged:
        engine = self._engine
        names = [u.name for u in engine.governor.keeper.config.uplinks]
        if name not in names and (state != "auto" or name not in engine.governor.forced):
            raise HostError(Problem("", f'no uplink "{name}"', f"there are {', '.join(names)}"))
        was = engine.governor.forced.get(name, "auto")
        with engine.store.lock(wait=True):
            kept = engine.store.load()
            kept.forced = {k: v for k, v in {**kept.forced, name: state}.items() if v != "auto"}
            engine.store.save(kept)
        if was != state:
            engine.event_log.note(
                "uplink", f"{name}: forced {was} -> {state} by the operator", name
            )
            engine.governor.force(self.load_forced())
        return UplinkChanged(name, was, state)

    # --- the config -----------------------------------------------------------------------

    def reload_by_signal(self) -> None:
        try:
            self.reload()
        except IfdefaultError as error:
            for problem in error.problems:
                self._engine.event_log.note("reload", f"refused: {problem}", level=logging.ERROR)

    def reload(self, confirm_s: int | None = None) -> Changes:
        """Take the config file in, whole or not at all."""
        engine = self._engine
        if self._probation is not None:
            remedy = (
                "run ifdefault confirm to keep it, or ifdefault down, or wait until it is undone"
            )
            raise HostError(Problem("reload", "an apply waits for its confirmation", remedy))
        engine.notifier.reloading()
        try:
            before, held = engine.governor.keeper.config, engine.governor.keeper.held
            prepared = engine.governor.adopt(read_config(engine.config_path))
        finally:
            engine.notifier.ready()
        if confirm_s is not None and prepared.operations:
            loop = asyncio.get_running_loop()
            self._probation = loop.call_later(confirm_s, self._undo, before, bool(held))
        if before.daemon.user != engine.governor.keeper.config.daemon.user:
            engine.event_log.note("reload", "daemon.user is taken in at the next start")
        engine.event_log.note("reload", f"config taken in, {len(prepared.operations)} operations")
        return Changes.of(prepared)

    def _undo(self, before: Config, held: bool) -> None:
        """Back to what was before `apply --confirm`; until that succeeds, again and again."""
        governor, event_log = self._engine.governor, self._engine.event_log
        try:
            governor.adopt(before)
            if held:
                governor.take_down()
        except (IfdefaultError, OSError) as error:
            event_log.note("reload", f"undoing, will be tried again: {error}", level=logging.ERROR)
            loop = asyncio.get_running_loop()
            self._probation = loop.call_later(_UNDO_AGAIN_S, self._undo, before, held)
            return
        self._probation = None
        event_log.note("reload", "not confirmed: all is as it was before")

    def _confirm(self) -> Confirmed:
        if self._probation is None:
            what = "nothing waits for a confirmation"
            raise HostError(Problem("confirm", what, "it may have been undone: see ifdefault plan"))
        self._call_off()
        return Confirmed()

    def _down(self) -> Changes:
        prepared = self._engine.governor.take_down()
        self._call_off()
        self._engine.event_log.note("down", "all of ours was taken out of the kernel")
        return Changes.of(prepared)

    def _exec(self, peer: Peer, name: str, netns: int) -> Entered:
        engine = self._engine
        keeper = engine.governor.keeper
        if keeper.held:
            raise HostError(Problem("exec", f"the daemon rests: {keeper.held}"))
        if netns != os.stat("/proc/self/ns/net").st_ino:
            what = "this is another network namespace than the daemon's"
            raise HostError(Problem("exec", what, "give the --run-dir of its own"))
        uplink = exec_groups.find_uplink(keeper.uplinks, name)
        path = exec_groups.enter(engine.store, peer.pid, peer.uid, name, engine.governor.replan)
        text = f"process {peer.pid} of uid {peer.uid} keeps to {name}"
        engine.event_log.note("exec", text, uplink.name)
        return Entered(path)

    def _call_off(self) -> None:
        if self._probation is not None:
            self._probation.cancel()
            self._probation = None

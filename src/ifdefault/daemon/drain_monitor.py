"""Counts the connections that are left on uplinks that are drained, for the status and an event.

Rules: nothing is counted while nothing is drained. The kernel is asked in a thread, and not again
before it has answered. A connection is as old as the kernel shows that it is at least, or as the
time since it was first counted, whichever is more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf

from ifdefault.daemon.controller.stale_connections import not_by_uplinks
from ifdefault.daemon.controller.state import State
from ifdefault.ipc import log, tasks
from ifdefault.kernel.count_connections import Connections, Selector, connections
from ifdefault.model.config import FAMILIES
from ifdefault.model.errors import internal, reason
from ifdefault.model.kernel import Uplink
from ifdefault.model.report import DaemonStatus
from ifdefault.plan.prepare import Prepared

COUNT_S = 2.0


class DrainMonitor:
    """`note` is called with an uplink and what to say of it. `ignored`: the user whose sockets are
    the daemon's own, -1 if none is."""

    def __init__(self, note: Callable[[str, str], None], ignored: int = -1) -> None:
        self._note, self._ignored = note, ignored
        self._began_s: dict[str, dict[bytes, float]] = {}  # each connection, at the latest
        self._drained: frozenset[str] = frozenset()
        self._reported: set[str] = set()  # of them, those that had no connections left
        self._next_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self.problems: tuple[str, ...] = ()

    def look(self, now: float, state: State) -> None:
        """Count anew, if it is time to."""
        drained = self._drained = frozenset(draining.uplink for draining in state.drains())
        self._reported &= drained
        self._began_s = {name: left for name, left in self._began_s.items() if name in drained}
        if not drained:
            self._next_s, self.problems = 0.0, ()
        elif now >= self._next_s and self._task is None and state.prepared is not None:
            self._next_s = now + COUNT_S
            uplinks = [u for u in state.uplinks if u.name in drained and not u.pending]
            selectors = {u.name: selector(u, state.prepared, self._ignored) for u in uplinks}
            self._task = tasks.start(self._count(selectors))

    async def close(self) -> None:
        if self._task is not None:  # the kernel is asked in a thread, which can't be cancelled
            await asyncio.wait([self._task])

    async def _count(self, selectors: Mapping[str, Selector]) -> None:
        try:
            for name, chosen in selectors.items():
                self._counted(name, await asyncio.to_thread(connections, chosen))
            self.problems = ()
        except OSError as error:
            self.problems = (f"can't count connections: {reason(error)}",)
        except Exception as error:
            log.exception(error, "counting connections")
            self.problems = (f"can't count connections: {internal(error)}",)
        finally:
            self._task = None

    def _counted(self, name: str, left: Connections) -> None:
        now, before = time.monotonic(), self._began_s.get(name, {})
        began_s = {key: min(before.get(key, inf), now - age_s) for key, age_s in left.items()}
        self._began_s[name] = began_s
        if not left and name in self._drained - self._reported:
            self._reported.add(name)
            self._note(name, f"{name}: no connections left")

    def add_to(self, status: DaemonStatus) -> DaemonStatus:
        """The status with what was counted."""
        drains = []
        for draining in status.drains:
            if (began_s := self._began_s.get(draining.uplink)) is not None:
                oldest_s = max(0.0, status.now_s - min(began_s.values(), default=status.now_s))
                draining = replace(draining, connections=len(began_s), oldest_s=oldest_s)
            drains.append(draining)
        return replace(status, drains=tuple(drains))


def selector(uplink: Uplink, prepared: Prepared, ignored: int = -1) -> Selector:
    """An uplink's connections: by its addresses that no other uplink has, and by its marks."""
    facts, uplinks = prepared.observation.facts, prepared.uplinks
    others = {a.address for u in uplinks if u.name != uplink.name for a in u.addresses}
    return Selector(
        addresses=tuple(a.address for a in uplink.addresses if a.address not in others),
        marks=(uplink.arrival_mark, uplink.outgoing_mark),
        mask=uplink.mark_mask,
        spared=tuple(sorted(p for f in FAMILIES for p in not_by_uplinks(facts, uplinks, f))),
        own=tuple(a.address for a in facts.addresses),
        ignored=ignored,
    )

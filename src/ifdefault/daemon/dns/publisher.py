"""Says what the DNS is to say, by every outlet that is configured.

    Publish ──> embedded (the server), dynamic_update (RFC 2136), programs (providers, executables)

Rules: one decision feeds all; an outlet that fails holds up no other, and tries again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.status import OutletStatus
from ifdefault.ipc.messages import Served


class Outlet(Protocol):
    """A way out. It takes what is to be said and sees to it, in its own time."""

    def take(self, now: float, publish: Publish) -> None:
        """Say this from now on."""

    def frontend_started(self) -> None:
        """A new frontend is there, which knows nothing."""

    def frontend_ended(self) -> None:
        """It is gone, with all that it had."""

    def standings(self) -> Iterable[OutletStatus]:
        """How each place stands."""

    async def close(self) -> None:
        """End what is under way."""


class Publisher:
    def __init__(self, event_log: EventLog, outlets: Sequence[Outlet]) -> None:
        self._event_log = event_log
        self._outlets = tuple(outlets)
        self._queries: dict[str, int] = {}

    def publish(self, now: float, publish: Publish) -> None:
        for outlet in self._outlets:
            outlet.take(now, publish)

    def frontend_started(self) -> None:
        for outlet in self._outlets:
            outlet.frontend_started()

    def frontend_ended(self) -> None:
        for outlet in self._outlets:
            outlet.frontend_ended()

    def hear(self, served: Served) -> None:
        """What the embedded server did."""
        for uplink, queries in served.queries:
            self._queries[uplink] = self._queries.get(uplink, 0) + queries
        for event in served.events:
            self._event_log.note("dns", event)

    def standings(self) -> tuple[OutletStatus, ...]:
        return tuple(each for outlet in self._outlets for each in outlet.standings())

    @property
    def queries(self) -> tuple[tuple[str, int], ...]:
        """Answered since the engine started, by the uplink that they came in by."""
        return tuple(sorted(self._queries.items()))

    async def close(self) -> None:
        for outlet in self._outlets:
            await outlet.close()

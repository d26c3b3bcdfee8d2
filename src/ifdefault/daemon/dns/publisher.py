"""Says what the DNS is to say, by every publisher that is configured.

    Publish ──> embedded (the server), dynamic_update (RFC 2136), programs (providers, executables)

Rules: one decision feeds all; a publisher that fails holds up no other, and tries again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.status import PublisherStatus
from ifdefault.ipc.messages import Served


class Publisher(Protocol):
    """A way out. It takes what is to be said and sees to it, in its own time."""

    def take(self, now: float, publish: Publish) -> None:
        """Say this from now on."""

    def frontend_started(self) -> None:
        """A new frontend is there, which knows nothing."""

    def frontend_ended(self) -> None:
        """It is gone, with all that it had."""

    def statuses(self) -> Iterable[PublisherStatus]:
        """How each place stands."""

    async def close(self) -> None:
        """End what is under way."""


class Publishers:
    def __init__(self, event_log: EventLog, publishers: Sequence[Publisher]) -> None:
        self._event_log = event_log
        self._publishers = tuple(publishers)
        self._queries: dict[str, int] = {}

    def publish(self, now: float, publish: Publish) -> None:
        for publisher in self._publishers:
            publisher.take(now, publish)

    def frontend_started(self) -> None:
        for publisher in self._publishers:
            publisher.frontend_started()

    def frontend_ended(self) -> None:
        for publisher in self._publishers:
            publisher.frontend_ended()

    def hear(self, served: Served) -> None:
        """What the embedded server did."""
        for uplink, queries in served.queries:
            self._queries[uplink] = self._queries.get(uplink, 0) + queries
        for event in served.events:
            self._event_log.note("dns", event)

    def statuses(self) -> tuple[PublisherStatus, ...]:
        return tuple(each for publisher in self._publishers for each in publisher.statuses())

    @property
    def queries(self) -> tuple[tuple[str, int], ...]:
        """Answered since the engine started, by the uplink that they came in by."""
        return tuple(sorted(self._queries.items()))

    async def close(self) -> None:
        for publisher in self._publishers:
            await publisher.close()

"""Publishes names in the DNS, by every configured publisher.

    Publish ──> embedded (the server), dynamic_update (RFC 2136), programs (providers, executables)

Rules: all publishers get the same names. One that fails delays no other, and retries by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.status import PublisherStatus
from ifdefault.ipc.messages import Served


class Publisher(Protocol):
    """Publishes names by one method, asynchronously."""

    def publish(self, now: float, publish: Publish) -> None:
        """Publish this from now on."""

    def frontend_started(self) -> None:
        """A new frontend is running; it has no sockets or zones yet."""

    def frontend_ended(self) -> None:
        """The frontend ended, with its sockets and requests."""

    def statuses(self) -> Iterable[PublisherStatus]:
        """The status of each server or program."""

    async def close(self) -> None:
        """Stop publishing; DNS servers keep what they have."""


class Publishers:
    def __init__(self, event_log: EventLog, publishers: Sequence[Publisher]) -> None:
        self._event_log = event_log
        self._publishers = tuple(publishers)
        self._queries: dict[str, int] = {}

    def publish(self, now: float, publish: Publish) -> None:
        for publisher in self._publishers:
            publisher.publish(now, publish)

    def frontend_started(self) -> None:
        for publisher in self._publishers:
            publisher.frontend_started()

    def frontend_ended(self) -> None:
        for publisher in self._publishers:
            publisher.frontend_ended()

    def receive(self, served: Served) -> None:
        """A report of the embedded server."""
        for uplink, queries in served.queries:
            self._queries[uplink] = self._queries.get(uplink, 0) + queries
        for event in served.events:
            self._event_log.note("dns", event)

    def statuses(self) -> tuple[PublisherStatus, ...]:
        return tuple(status for p in self._publishers for status in p.statuses())

    @property
    def queries(self) -> tuple[tuple[str, int], ...]:
        """Queries answered since the engine started, by the uplink that they came in on."""
        return tuple(sorted(self._queries.items()))

    async def close(self) -> None:
        for publisher in self._publishers:
            await publisher.close()

"""Publishes names in the DNS, by every configured publisher.

    Publish ──> embedded (the server), dynamic_update (RFC 2136), programs (providers, executables)

Rules: all publishers get the same names. One that fails delays no other, and retries by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from ifdefault.daemon.controller.effects import Publish
from ifdefault.daemon.dns.update_counts import Row, UpdateCounts
from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.bounds import Allowance
from ifdefault.dns.client import code_name
from ifdefault.ipc.messages import Served
from ifdefault.model.report import PublisherStatus

_EVENTS, _EVENTS_PER_S = 100, 0.2  # of the DNS server: at once, and in the long run
_MOST_QUERIES = (1 << 63) - 1


class Publisher(Protocol):
    """Publishes names by one method, asynchronously."""

    counts: UpdateCounts

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
        self._queries: dict[tuple[str, str], int] = {}  # by uplink and response code
        self._uplinks: frozenset[str] = frozenset()
        self._events = Allowance(_EVENTS, _EVENTS_PER_S)

    def publish(self, now: float, publish: Publish) -> None:
        self._uplinks = frozenset(uplink.name for uplink in publish.config.uplinks)
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
        for uplink, code, queries in served.queries:
            if uplink in self._uplinks:
                key = (uplink, code_name(code))
                self._queries[key] = min(queries + self._queries.get(key, 0), _MOST_QUERIES)
        for event in served.events:
            self._note(event)

    def _note(self, event: str) -> None:
        """An event that the server reports is its own word, and may not pass for one of ours."""
        refused = self._events.refused
        if not self._events.take(time.monotonic()):
            return
        if refused:
            self._events.refused = 0
            self._event_log.note("dns", f"{refused} more events of the DNS server are not logged")
        own = event.startswith(("secondary ", "secondaries "))
        self._event_log.note("dns", event if own else f"the DNS server reports: {event}")

    def statuses(self) -> tuple[PublisherStatus, ...]:
        return tuple(status for p in self._publishers for status in p.statuses())

    @property
    def queries(self) -> tuple[tuple[str, str, int], ...]:
        """As in DnsStatus."""
        return tuple((*key, count) for key, count in sorted(self._queries.items()))

    @property
    def updates(self) -> tuple[Row, ...]:
        """As in CounterReport."""
        return tuple(row for p in self._publishers for row in p.counts.report())

    async def close(self) -> None:
        for publisher in self._publishers:
            await publisher.close()

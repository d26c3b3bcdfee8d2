"""A part of the monitor that takes what the feed reports: the history, notifications, the textfile.

Rules: the monitor calls one after another, in the order of its list, so that what one has received
the next may rely on. A consumer blocks nothing: what takes time goes on after `receive` returned.
"""

from __future__ import annotations

from typing import Protocol

from ifdefault.monitor.config import MonitorConfig
from ifdefault.monitor.feed import Report


class Consumer(Protocol):
    @property
    def serial(self) -> int | None:
        """Of the last event that it needs no more, over restarts too; None if it doesn't care. It
        gets those after it that the engine still has. Events of the monitor itself have the serial
        0, and come once."""

    async def receive(self, report: Report) -> None:
        """NewEvents, Sample, Away or Back."""

    async def configure(self, config: MonitorConfig) -> None:
        """The config has changed."""

    async def close(self) -> None:
        """The monitor ends."""

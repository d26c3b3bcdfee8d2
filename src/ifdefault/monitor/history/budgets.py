"""The budgets of uplinks, read from the history.

Rules: as in `history.reader`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from ifdefault.monitor.history.budget import RATE_DAYS, Budget, budget, month_of
from ifdefault.monitor.history.reader import reading


class Uplink(Protocol):
    """Its part of the config."""

    @property
    def name(self) -> str: ...
    @property
    def budget_bytes(self) -> int: ...
    @property
    def reset_day(self) -> int: ...


def read_budgets(state_dir: Path, uplinks: Iterable[Uplink], now: datetime) -> dict[str, Budget]:
    """What each uplink that has a budget has used of it. `now`: with the offset of local time.
    HostError if there is no history, or it can't be read."""
    limited = [uplink for uplink in uplinks if uplink.budget_bytes]
    found: dict[str, Budget] = {}
    if not limited:
        return found
    with reading(state_dir) as history:
        for uplink in limited:
            begin, _ = month_of(now, uplink.reset_day)
            since = min(begin, now - timedelta(days=RATE_DAYS)).timestamp()
            traffic = history.traffic(since, now.timestamp(), uplink.name)
            found[uplink.name] = budget(traffic, uplink.budget_bytes, uplink.reset_day, now)
    return found

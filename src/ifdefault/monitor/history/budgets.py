"""The budgets of uplinks, read from the history.

Rules: as in `history.reader`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from ifdefault.model.usage import Usage
from ifdefault.monitor.history.budget import RATE_DAYS, Budget, budget, month_of
from ifdefault.monitor.history.reader import Reader, reading


class Uplink(Protocol):
    """Its part of the config."""

    @property
    def name(self) -> str: ...
    @property
    def budget_bytes(self) -> int: ...
    @property
    def reset_day(self) -> int: ...


def budgets(
    history: Reader, uplinks: Iterable[Uplink], now: datetime, usage: Iterable[Usage] = ()
) -> dict[str, Budget]:
    """What each uplink has used of its budget, if it has one, in its provider's month. `now`: with
    the offset of local time. `usage`: what the engine has counted."""
    counted = {each.uplink: each.used_bytes for each in usage}
    found: dict[str, Budget] = {}
    for uplink in uplinks:
        begin, _ = month_of(now, uplink.reset_day)
        since = min(begin, now - timedelta(days=RATE_DAYS)).timestamp()
        traffic = history.traffic(since, now.timestamp(), uplink.name)
        found[uplink.name] = budget(
            traffic, uplink.budget_bytes, uplink.reset_day, now, counted.get(uplink.name)
        )
    return found


def read_budgets(
    state_dir: Path, uplinks: Iterable[Uplink], now: datetime, usage: Iterable[Usage] = ()
) -> dict[str, Budget]:
    """The same of each uplink that has a budget. HostError if there is no history, or it can't be
    read."""
    limited = [uplink for uplink in uplinks if uplink.budget_bytes]
    if not limited:
        return {}
    with reading(state_dir) as history:
        return budgets(history, limited, now, usage)

"""What uplinks have used of their budgets, on disk: usage.json in the state directory.

Rules: as in `host.state_file`. The counters of links and the clock of the boot are valid in one
boot and network namespace.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from ifdefault.host.state_file import StateFile
from ifdefault.host.store import Store
from ifdefault.kernel.netns import network_id
from ifdefault.model.month import DAY_S
from ifdefault.model.usage import SavedUsage

_LATEST_S = 4e9  # of a clock: more than a century
_MOST = 1 << 64  # of a counter


def _check(saved: SavedUsage) -> None:
    if not all(isfinite(value) and abs(value) < _LATEST_S for value in _times(saved)):
        raise ValueError("not a valid time")
    for each in saved.uplinks:
        counts = [each.bytes_in, each.bytes_out, each.link, *(s.bytes for s in each.slices)]
        counts += [number for pair in (*each.days, *each.noted) for number in pair[1:]]
        if not all(0 <= number < _MOST for number in counts):
            raise ValueError(f"{each.uplink}: not a valid count")


def _times(saved: SavedUsage) -> list[float]:
    times = [saved.at_s, saved.boot_s]
    for each in saved.uplinks:
        times += [day * DAY_S for day, _ in (*each.days, *each.noted)]
        times += [value for s in each.slices for value in (s.boot_s, s.offset_s)]
    return times


USAGE: StateFile[SavedUsage] = StateFile(
    "usage.json",
    SavedUsage,
    "what uplinks have used of their budgets is counted from 0",
    urgent=False,
    check=_check,
)


def load(store: Store) -> SavedUsage | None:
    saved = store.read(USAGE)
    if saved is None or saved.boot == network_id():
        return saved
    return replace(saved, boot="")


def save(store: Store, usage: SavedUsage) -> None:
    store.write(USAGE, replace(usage, boot=network_id()))

"""The state of the uplinks, in one sentence: the headline of the page and of `top`.

Rules: as in `report_text`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ifdefault.model.health import Decision, Health, PathState
from ifdefault.model.report import DaemonStatus
from ifdefault.model.report_text import grouped

Tone = Literal["good", "warn", "bad"]
_SOME = 3  # that are named
WORST: tuple[PathState, ...] = ("down", "recovering", "degraded", "unproven", "up")
_IS: dict[PathState, str] = {
    "down": "is down",
    "recovering": "is recovering",
    "degraded": "is degraded",
    "unproven": "isn't proven yet",
    "up": "works",
}


def headline(status: DaemonStatus) -> tuple[str, Tone]:
    """The state of the uplinks, and which of them new connections use; and good, warn or bad."""
    paths = grouped(status.health)
    if not paths:
        return "No uplink has an address yet", "warn"
    unwell = list(_unwell(status, paths))
    if not any(path.state != "down" for path in status.health):
        return f"{_all(len(paths))} {'are' if len(paths) > 1 else 'is'} down", "bad"
    if (rest := len(unwell) - _SOME) > 1:
        unwell[_SOME:] = [f"{rest} more aren't well"]
    text = "; ".join(unwell) or f"{_all(len(paths))} work{'s' if len(paths) == 1 else ''}"
    is_down = any(path.state == "down" for path in status.health)
    uses = _uses(status.decision)
    tone: Tone = "bad" if is_down else "warn" if unwell else "good"
    return text + (f"; new connections use {uses}" if uses else ""), tone


def _all(number: int) -> str:
    return {1: "The uplink", 2: "Both uplinks"}.get(number, f"All {number} uplinks")


def _unwell(status: DaemonStatus, paths: dict[str, list[Health]]) -> Iterator[str]:
    for uplink, of_uplink in paths.items():
        if forced := status.forced.get(uplink):
            yield f"{uplink} {'is drained' if forced == 'drain' else f'is forced {forced}'}"
            continue
        states = {path.state for path in of_uplink}
        for state in WORST[:-1]:
            hit = [path for path in of_uplink if path.state == state]
            if hit:
                only = "" if len(states) == 1 else f" for IPv{hit[0].family}"
                yield f"{uplink} {_IS[state]}{only}"


def _uses(decision: Decision) -> str:
    primary = {family: order[0] for family, order in decision.order if order}
    if len(set(primary.values())) <= 1:
        return next(iter(primary.values()), "")
    return " and ".join(f"{uplink} (IPv{family})" for family, uplink in sorted(primary.items()))

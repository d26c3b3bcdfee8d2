"""How the uplinks fare, in one sentence.

Rules: text from values alone; the worst comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifdefault.cli.show.paths import age, grouped
from ifdefault.cli.show.style import Line

if TYPE_CHECKING:
    from ifdefault.model.report import DaemonStatus

_SOME = 3  # uplinks that are named


def headline(status: DaemonStatus) -> Line:
    """ "2 of 3 uplinks work; isp-c is down for 3m12s; isp-a is primary"."""
    if status.held:
        return Line(status.held, "warn")
    uplinks = grouped(status.health)
    usable = {name for _, names in status.decision.usable for name in names}
    ill = {
        name: [path for path in paths if path.state in ("down", "degraded", "recovering")]
        for name, paths in uplinks.items()
    }
    down = [name for name, paths in ill.items() if any(p.state == "down" for p in paths)]
    working = [name for name in uplinks if name not in down]
    worst = [*down, *(name for name, paths in ill.items() if paths and name not in down)]
    parts = [_count(len(working), len(uplinks))]
    parts += [_ill(status, name, len(uplinks[name])) for name in worst[:_SOME]]
    parts += [f"{d.uplink} is draining" for d in status.drains if d.uplink in usable | {*uplinks}]
    parts.append(_primaries(status))
    bad = bool(down)
    is_ill = bad or any(ill.values()) or status.conflicts or status.astray or status.drains
    return Line("; ".join(filter(None, parts)), "bad" if bad else "warn" if is_ill else "good")


def _count(working: int, uplinks: int) -> str:
    if not uplinks:
        return "no uplink is ready yet"
    if working == uplinks:
        return "the uplink works" if uplinks == 1 else f"all {uplinks} uplinks work"
    return f"{working or 'none'} of {uplinks} uplinks work{'s' * (working == 1)}"


def _ill(status: DaemonStatus, name: str, families: int) -> str:
    """ "isp-c is down for 3m12s", or "isp-c IPv6 is down for 3m12s" if IPv4 fares better."""
    paths = [path for path in status.health if path.uplink == name]
    worst = next(
        state
        for state in ("down", "recovering", "degraded")
        if any(path.state == state for path in paths)
    )
    ill = [path for path in paths if path.state == worst]
    since = age(max(status.now_s - path.since_s for path in ill))
    family = f" IPv{ill[0].family}" if len(ill) < families else ""
    return f"{name}{family} is {worst} for {since}"


def _primaries(status: DaemonStatus) -> str:
    firsts = {family: order[0] for family, order in status.decision.order if order}
    if len(set(firsts.values())) == 1:
        return f"{next(iter(firsts.values()))} is primary"
    return ", ".join(f"{name} is primary for IPv{family}" for family, name in firsts.items())

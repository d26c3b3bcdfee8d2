"""How what the engine reports is put into words, on a terminal and on a page alike.

Rules: as in `model`: text from values alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from ifdefault.model.health import Decision, Health, LineLoad
from ifdefault.model.month import day_name
from ifdefault.model.usage import Usage

_PINGED = re.compile(r"icmp://\[?([\w.:]+)\]?")  # shown as ping(8) does, to fit
_PARTS = {4: "half", 2: "a quarter", 1: "an eighth"}  # of WHOLE
Role = Literal["primary", "usable", "standby", "not used"]
ROLES: tuple[Role, ...] = ("primary", "usable", "standby", "not used")  # the best first


def grouped(health: Iterable[Health]) -> dict[str, list[Health]]:
    """The paths of each uplink, which come in the order in which they were first usable."""
    groups: dict[str, list[Health]] = {}
    for path in health:
        groups.setdefault(path.uplink, []).append(path)
    return {uplink: sorted(paths, key=lambda p: p.family) for uplink, paths in groups.items()}


def role(path: Health, decision: Decision) -> Role:
    """Of a path, for new connections."""
    if path.uplink in decision.ranking(path.family)[:1]:
        return "primary"
    if path.uplink in decision.usable_in(path.family):
        return "usable"
    return "standby" if path.uplink in decision.works_in(path.family) else "not used"


def cause(path: Health) -> str:
    """Why a path is in its state."""
    return _PINGED.sub(r"\1", path.cause)


def count(number: int, noun: str) -> str:
    """ "no problems", "1 problem", "2 problems"."""
    return f"{number or 'no'} {noun}{'s' * (number != 1)}"


def age(seconds: float) -> str:
    """A duration in a table, in at most two units: "0.4s", "45s", "3m12s", "2h05m", "4d3h"."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h}h"
    if hours:
        return f"{hours}h{m:02d}m"
    return f"{m}m{s:02d}s" if minutes else f"{s}s"


def rate(bits_per_s: float) -> str:
    """A bit rate in three digits: "0", "940 bit/s", "1.25 Mbit/s"."""
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits_per_s < 999.5:
            return f"{bits_per_s:.3g} {unit}"
        bits_per_s /= 1000
    return f"{bits_per_s:.3g} Gbit/s"


def duration(seconds: float) -> str:
    """A duration in a sentence, in at most two units: "3.2 s", "12 min 5 s", "2 d 4 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit_s, unit, lesser_s, lesser in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // lesser_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {lesser}" if rest else "")
    raise AssertionError


def used_of(used: int, limit: int) -> str:
    """ "41.3 of 50.0 GB (83 %)", "1.2 GB" without a limit."""
    if not limit:
        return size(used)
    number, unit = size(used).split()
    of = size(limit)
    text = number if of.endswith(f" {unit}") else f"{number} {unit}"
    return f"{text} of {of} ({100 * used / limit:.0f} %)"


def budget_used(usage: Usage) -> str:
    """What is used of a budget, in a sentence."""
    used = used_of(usage.used_bytes, usage.limit_bytes)
    return f"{used} of its budget used; the next month begins on {day_name(usage.until)}"


def size(count: float) -> str:
    """Bytes in decimal units, as providers count them: "940 B", "1.2 GB", "120 GB"."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or count >= 100 else 1
    return f"{count:.{digits}f} {units[0]}"


def filling(load: LineLoad) -> str:
    """How full a line is: "92 % of 100 Mbit/s out, a quarter of its weight"."""
    text = f"{100 * load.used:.0f} % of {rate(load.capacity_bits)} {load.direction}"
    part = _PARTS.get(load.share)
    return f"{text}, {part} of its weight" if part else text

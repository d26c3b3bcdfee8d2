"""Durations as users write them: 90s, 30m, 2h, 1d, 1h30m; a number alone is seconds."""

from __future__ import annotations

import re

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d{1,7})d)?(?:(\d{1,7})h)?(?:(\d{1,7})m)?(?:(\d{1,7})s?)?")


def seconds(text: str) -> int | None:
    """Whole seconds; None if it isn't a duration."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        return None
    counts = map(int, match.groups("0"))
    return sum(n * unit for n, unit in zip(counts, UNITS.values(), strict=True))

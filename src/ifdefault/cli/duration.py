"""Durations on the command line: 90s, 30m, 2h, 1d, 1h30m; a number alone is seconds."""

from __future__ import annotations

import re
from collections.abc import Callable

import click

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d{1,7})d)?(?:(\d{1,7})h)?(?:(\d{1,7})m)?(?:(\d{1,7})s?)?")


def up_to(most_s: int) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """A callback that reads an option as whole seconds, from 1 to `most_s`."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
        if text is None:
            return None
        match = _DURATION.fullmatch(text)
        counts = map(int, match.groups("0")) if match else ()
        seconds = sum(n * unit for n, unit in zip(counts, _UNITS.values(), strict=False))
        if not 1 <= seconds <= most_s:
            use = f"use 90s, 30m, 2h or 1h30m, at most {most_s // _UNITS['d']}d"
            raise click.BadParameter(f'"{text}" is not a time; {use}')
        return seconds

    return read

"""Durations on the command line."""

from __future__ import annotations

from collections.abc import Callable

import click

from ifdefault.model.duration import UNITS, seconds


def up_to(most_s: int) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """A callback that reads an option as whole seconds, from 1 to `most_s`."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
        if text is None:
            return None
        value = seconds(text)
        if value is None or not 1 <= value <= most_s:
            use = f"use 90s, 30m, 2h or 1h30m, at most {most_s // UNITS['d']}d"
            raise click.BadParameter(f'"{text}" is not a time; {use}')
        return value

    return read

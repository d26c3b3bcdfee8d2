"""Output that several subcommands share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ifdefault.model.errors import Problem

if TYPE_CHECKING:
    from ifdefault.model.changes import Changes


def print_problems(problems: Iterable[Problem]) -> None:
    """Print errors and warnings to stderr."""
    for problem in problems:
        click.echo(f"{'warning' if problem.warning else 'error'}: {problem}", err=True)


def problems_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(problem) for problem in problems]


def print_applied(changes: Changes, confirm_s: int | None, *, quiet: bool, as_json: bool) -> None:
    """Print what `apply`, or the daemon for it, has done."""
    if as_json:
        from ifdefault.ipc import codec

        click.echo(json.dumps(codec.to_json(changes), indent=1))
        return
    print_problems(changes.problems)
    if quiet:
        return
    for operation in changes.operations:
        click.echo(operation)
    count = len(changes.operations)
    done = f"{count} operations performed" if count else "nothing to do"
    click.echo(f"{done}; {changes.ready} of {changes.uplinks} uplinks in use", err=True)
    if confirm_s and count:
        click.echo(f"undone in {confirm_s} s unless you run: ifdefault confirm", err=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, with columns as wide as their longest cell."""
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]

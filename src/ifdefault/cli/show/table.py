"""What several subcommands tell in the same words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ifdefault.model.errors import Problem

if TYPE_CHECKING:
    from ifdefault.host.transaction import Prepared


def tell_problems(problems: Iterable[Problem]) -> None:
    """Errors and warnings, on stderr."""
    for problem in problems:
        click.echo(f"{'warning' if problem.warning else 'error'}: {problem}", err=True)


def problems_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(problem) for problem in problems]


def operations_json(prepared: Prepared) -> dict[str, Any]:
    """What an engine tells as well, see `daemon.operator`."""
    from ifdefault.plan.describe import describe

    return {
        "operations": [describe(operation) for operation in prepared.operations],
        "pending": {u.name: u.pending for u in prepared.uplinks if u.pending},
        "problems": problems_json(prepared.problems),
        "ruleset": prepared.desired.nft,
        "ready": sum(not u.pending for u in prepared.uplinks),
        "uplinks": len(prepared.uplinks),
    }


def tell_applied(
    told: Mapping[str, Any], confirm_s: int | None, *, quiet: bool, as_json: bool
) -> None:
    """What `apply` did, or the engine for it, as `operations_json` has it."""
    if as_json:
        click.echo(json.dumps({k: v for k, v in told.items() if k != "ok"}, indent=1))
        return
    tell_problems(Problem(**problem) for problem in told["problems"])
    if quiet:
        return
    for operation in told["operations"]:
        click.echo(operation)
    count = len(told["operations"])
    done = f"{count} operations performed" if count else "nothing to do"
    click.echo(f"{done}; {told['ready']} of {told['uplinks']} uplinks in use", err=True)
    if confirm_s and count:
        click.echo(f"undone in {confirm_s} s unless you run: ifdefault confirm", err=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns that are as wide as need be."""
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]

"""What several subcommands tell in the same words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ifdefault.errors import Problem
    from ifdefault.host.apply import Prepared


def tell_problems(problems: Iterable[Problem]) -> None:
    """Errors and warnings, on stderr."""
    for problem in problems:
        click.echo(f"{'warning' if problem.warning else 'error'}: {problem}", err=True)


def problems_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(problem) for problem in problems]


def operations_json(prepared: Prepared) -> dict[str, Any]:
    from ifdefault.plan.describe import describe

    return {
        "operations": [describe(operation) for operation in prepared.operations],
        "pending": {u.name: u.pending for u in prepared.uplinks if u.pending},
        "problems": problems_json(prepared.problems),
        "ruleset": prepared.desired.nft,
    }

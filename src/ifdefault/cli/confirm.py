"""`ifdefault confirm`: keep what `apply --confirm` did."""

from __future__ import annotations

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo


@click.command()
@click.pass_obj
def command(options: Options) -> None:
    """Keep the changes made by `apply --confirm`. Exits 1 if there is nothing to confirm."""
    from ifdefault.cli import unconfirmed

    unconfirmed.confirm(options)
    echo("kept")

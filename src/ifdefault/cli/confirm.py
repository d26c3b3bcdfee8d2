"""`ifdefault confirm`: keep what `apply --confirm` did."""

from __future__ import annotations

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo


@click.command()
@click.pass_obj
def command(options: Options) -> None:
    """Keep the changes made by `apply --confirm`. Exits 1 if there is nothing to confirm."""
    from ifdefault.cli import daemon_client

    if daemon_client.runs(options):
        from ifdefault.daemon.control.protocol import Confirm

        daemon_client.ask(options, Confirm(), daemon_client.CHANGE_S)
    else:
        from ifdefault.host import rollback_timer
        from ifdefault.host.store import Store

        rollback_timer.confirm(Store(options.state_dir), options.config)
    echo("kept")

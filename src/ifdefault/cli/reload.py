"""`ifdefault reload`: the daemon applies a changed config, or rejects all of it."""

from __future__ import annotations

import click

from ifdefault.cli.options import Options


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, quiet: bool, as_json: bool) -> None:
    """Make the daemon load the changed configuration. If it has an error, it is rejected as a
    whole, and the old one stays in use.
    """
    from ifdefault.cli import daemon_client
    from ifdefault.cli.show import table
    from ifdefault.ipc.control.protocol import Reload

    changes = daemon_client.ask(options, Reload(), daemon_client.CHANGE_S)
    table.print_applied(changes, None, quiet=quiet, as_json=as_json)

"""`ifdefault reload`: the daemon applies a changed config, or rejects all of it."""

from __future__ import annotations

import click

from ifdefault.cli.options import Options


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(options: Options, quiet: bool, as_json: bool) -> None:
    """Let the daemon take in a changed config. If anything is wrong with it, it is refused whole,
    with all errors, and the old one goes on.
    """
    from ifdefault.cli import daemon_client
    from ifdefault.cli.show import table
    from ifdefault.daemon.control.protocol import Reload

    changes = daemon_client.ask(options, Reload(), daemon_client.CHANGE_S)
    table.print_applied(changes, None, quiet=quiet, as_json=as_json)

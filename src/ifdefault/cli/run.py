"""`ifdefault run`: the daemon, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from ifdefault.cli.options import Options


@click.command()
@click.option(
    "-v", "--verbose", is_flag=True, help="Log each operation, and each probe without answer."
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what the daemon decides from to a new file, for ifdefault replay.",
)
@click.pass_obj
def command(options: Options, verbose: bool, record: Path | None) -> int:
    """Apply the config, then watch: probe the uplinks, move the default away from a dead one,
    put back what others delete, follow addresses and routers that change.

    Stays in the foreground until SIGTERM, which leaves the kernel as it is; SIGHUP takes in a
    changed config.
    """
    from ifdefault.config import read as read_config

    read_config(options.config)  # report config errors before anything else is loaded
    from ifdefault.daemon.engine import run

    return run(options.config, options.state_dir, options.run_dir, verbose=verbose, record=record)

"""`ifdefault run`: the daemon, in the foreground."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from ifdefault.cli.options import Options


@click.command()
@click.option(
    "-v", "--verbose", is_flag=True, help="Log each operation and each unanswered probe too."
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Record what the daemon bases its decisions on, for `ifdefault replay`.",
)
@click.pass_obj
def command(options: Options, verbose: bool, record: Path | None) -> int:
    """Run the daemon in the foreground: apply the configuration, probe the uplinks, replace a
    primary uplink that fails, restore what others delete, follow changes of addresses and routers.

    SIGTERM ends it and leaves the kernel as it is; SIGHUP loads the changed configuration. If the
    configuration is invalid, it starts with the last one that worked.
    """
    from ifdefault.host.last_config import ConfigFile
    from ifdefault.host.store import Store

    # report config errors before anything else is loaded
    ConfigFile(options.config, Store(options.state_dir)).read_or_last()
    from ifdefault.daemon.engine import run

    gc.freeze()  # what is imported stays
    gc.set_threshold(700, 10, 10)  # Python's own: pauses that no probe notices
    return run(options.config, options.state_dir, options.run_dir, verbose=verbose, record=record)

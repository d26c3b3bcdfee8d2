"""`ifdefault top`: the state of the uplinks, live, on the whole terminal."""

from __future__ import annotations

import os
import sys

import click

from ifdefault.cli.options import Options
from ifdefault.model.errors import HostError, Problem


@click.command()
@click.pass_obj
def command(options: Options) -> None:
    """Show the state of the uplinks on the whole terminal, updated each second.

    Keys select an uplink, show its details, and force its state; h lists them.
    """
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        what = "stdin or stdout is not a terminal"
        raise HostError(Problem("top", what, "use ifdefault status, or status --watch"))
    if os.environ.get("TERM", "dumb") == "dumb":
        raise HostError(Problem("top", "the terminal is dumb", "use ifdefault status"))
    from ifdefault.cli.show.poll import Poller
    from ifdefault.cli.show.terminal import Terminal
    from ifdefault.cli.show.top_screen import Top

    with Terminal(alternate=True) as terminal:
        Top(options, terminal, Poller(options.run_dir, options.state_dir, terminal.wake)).run()

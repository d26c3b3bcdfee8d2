"""`ifdefault web`: the page, the API and metrics, in the foreground."""

from __future__ import annotations

import click

from ifdefault.cli.options import Options


@click.command()
@click.pass_obj
def command(options: Options) -> int:
    """Serve the page, the API and metrics in the foreground, as configured by [web].

    The process has no privileges: started as root, it becomes the user ifdefault-web. It runs
    beside the daemon, and whether or not that does.
    """
    from ifdefault.web.helper import Files
    from ifdefault.web.main import run

    return run(Files(options.config, options.state_dir, options.run_dir))

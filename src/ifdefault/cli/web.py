"""`ifdefault web`: the page, the API and metrics, in the foreground."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec

import click

from ifdefault.cli.options import Options

_LIBRARIES = ("aiohttp", "jinja2", "prometheus_client")
_OF_HELPER = (
    *("ifdefault.cli.daemon_client", "ifdefault.cli.explain", "ifdefault.config.file"),
    *("ifdefault.config.parse", "ifdefault.host.explain", "ifdefault.host.status"),
    *("ifdefault.host.transaction", "ifdefault.ipc.control.protocol", "ifdefault.kernel.nft"),
)


@click.command()
@click.pass_obj
def command(options: Options) -> int:
    """Serve the page, the API and metrics in the foreground, as configured by [web].

    The process has no privileges: started as root, it becomes the user ifdefault-web. It runs
    beside the daemon, and whether or not that does.
    """
    from ifdefault.cli import main
    from ifdefault.model.errors import HostError, Problem
    from ifdefault.web.helper import Files
    from ifdefault.web.main import run

    if lacking := [library for library in _LIBRARIES if not find_spec(library)]:
        what = f"{', '.join(lacking)} not installed"
        raise HostError(Problem("web", what, "run pip install 'ifdefault[web]'"))

    def load() -> None:
        if os.geteuid() == 0:  # the user that it becomes may not be able to read these modules
            for module in _OF_HELPER:
                import_module(module)

    return run(Files(options.config, options.state_dir, options.run_dir), load, main.run)

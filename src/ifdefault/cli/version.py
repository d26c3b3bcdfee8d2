"""`ifdefault version`: the versions of what runs, as a bug report needs them."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import click

import ifdefault
from ifdefault.cli.show.output import echo


@click.command()
def command() -> None:
    """Show the version of ifdefault, Python, the kernel and libnftables, and where each is."""
    from ifdefault.kernel import nft

    here = Path(ifdefault.__file__).parent
    for name, value in (
        ("ifdefault", f"{ifdefault.__version__}, {here}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("kernel", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("libnftables", nft.library_path() or "not installed"),
    ):
        echo(f"{name:<12} {value}")

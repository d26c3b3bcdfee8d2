"""The global options, which every subcommand gets by `click.pass_obj`, and those of several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class Options:
    config: Path = Path("/etc/ifdefault/ifdefault.toml")
    state_dir: Path = Path("/var/lib/ifdefault")
    run_dir: Path = Path("/run/ifdefault")


root_option = click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="ADDRESS",
    help="Start at this root server instead of the Internet's; may be repeated.",
)

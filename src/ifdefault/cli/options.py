"""The global options, which every subcommand gets by `click.pass_obj`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    config: Path = Path("/etc/ifdefault/ifdefault.toml")
    state_dir: Path = Path("/var/lib/ifdefault")
    run_dir: Path = Path("/run/ifdefault")

"""The metrics as a file, for the textfile collector of Prometheus' node_exporter.

Rules: a reader sees the old file or the new one as a whole, and every user may read it. Until it
takes its place the new one has a name that the collector doesn't read, which looks for *.prom.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ifdefault.model.errors import HostError, Problem, reason

if TYPE_CHECKING:
    from ifdefault.model.report import CounterReport, DaemonStatus
    from ifdefault.monitor.metrics import Budget

EVERY_S = 15.0
_KEY = "history.textfile"


def write_textfile(
    path: Path,
    status: DaemonStatus | None,
    counters: CounterReport | None,
    budgets: Iterable[Budget] = (),
) -> None:
    """Write it anew; HostError if that isn't possible."""
    try:
        from ifdefault.monitor.metrics import render
    except ImportError:
        what, remedy = "prometheus_client is not installed", "pip install 'ifdefault[web]'"
        raise HostError(Problem(_KEY, what, remedy)) from None
    content = render(status, counters, budgets)
    fresh = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask
            file.write(content)
        fresh.rename(path)
    except OSError as error:
        remedy = "its folder must be writable for the user of ifdefault-monitor.service"
        raise HostError(Problem(_KEY, f"can't write {path}: {reason(error)}", remedy)) from error

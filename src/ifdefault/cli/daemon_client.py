"""Requests of the subcommands to the running daemon.

Rules: while the daemon runs only it changes the kernel, so that a subcommand sends it a request
instead of doing the work itself. Its errors are the same, with the same exit status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifdefault.cli.options import Options

if TYPE_CHECKING:
    from ifdefault.ipc.control.protocol import Asks, R
    from ifdefault.model.health import Decision
    from ifdefault.model.report import DaemonStatus

CHANGE_S = 120.0  # a thousand operations take seconds, and another ifdefault may hold the lock
LOOK_S = 5.0


def ask(options: Options, request: Asks[R], timeout_s: float = LOOK_S) -> R:
    """The daemon's response; NotRunning if no daemon runs."""
    from ifdefault.ipc.control import client

    return client.ask(options.run_dir, request, timeout_s)


def runs(options: Options) -> bool:
    """Whether the daemon runs, found out without loading what a request needs."""
    from ifdefault.ipc.control import client

    return bool(client.listener(client.socket_path(options.run_dir)))


def status(options: Options) -> DaemonStatus | None:
    """The daemon's status; None if no daemon runs."""
    if not runs(options):
        return None
    from ifdefault.ipc.control.client import NotRunning
    from ifdefault.ipc.control.protocol import Status

    try:
        return ask(options, Status())
    except NotRunning:  # it ended meanwhile
        return None


def decision(options: Options) -> Decision | None:
    """The daemon's decision, which a plan must follow; None if no daemon runs."""
    daemon_status = status(options)
    return daemon_status.decision if daemon_status else None

"""What the running engine says, and what it is told to do, for the subcommands.

Rules: where an engine runs it alone changes the kernel, so that a subcommand asks it instead of
doing the work itself. Its refusals are the same errors, with the same exit status, as ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifdefault.cli.options import Options

if TYPE_CHECKING:
    from ifdefault.daemon.control.protocol import Asks, R
    from ifdefault.daemon.status import DaemonStatus
    from ifdefault.model.health import Decision

CHANGE_S = 120.0  # a thousand operations take seconds; it may wait for another ifdefault
LOOK_S = 5.0


def ask(options: Options, request: Asks[R], timeout_s: float = LOOK_S) -> R:
    """The engine's answer; NotRunning where there is no engine."""
    from ifdefault.daemon.control import client

    return client.ask(options.run_dir, request, timeout_s)


def runs(options: Options) -> bool:
    """Whether there is an engine. Told before anything is loaded that it takes to ask it."""
    from ifdefault.daemon.control import client

    return bool(client.listener(options.run_dir / client.SOCKET))


def standing(options: Options) -> DaemonStatus | None:
    """How the engine says that it stands; None where there is none."""
    if not runs(options):
        return None
    from ifdefault.daemon.control.client import NotRunning
    from ifdefault.daemon.control.protocol import Status

    try:
        return ask(options, Status())
    except NotRunning:  # it has just ended
        return None


def decision(options: Options) -> Decision | None:
    """What the engine has decided, which a plan must follow; None where there is none."""
    stands = standing(options)
    return stands.decision if stands else None

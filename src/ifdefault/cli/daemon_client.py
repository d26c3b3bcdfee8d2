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


def change(options: Options, request: Asks[R]) -> R | None:
    """Let the engine do it; None where there is none, so that we do it ourselves."""
    return _ask_if_running(options, request, CHANGE_S)


def standing(options: Options) -> DaemonStatus | None:
    """How the engine says that it stands; None where there is none."""
    from ifdefault.daemon.control.protocol import Status

    return _ask_if_running(options, Status(), LOOK_S)


def _ask_if_running(options: Options, request: Asks[R], timeout_s: float) -> R | None:
    from ifdefault.daemon.control.client import NotRunning

    try:
        return ask(options, request, timeout_s)
    except NotRunning:
        return None


def decision(options: Options) -> Decision | None:
    """What the engine has decided, which a plan must follow; None where there is none."""
    stands = standing(options)
    return stands.decision if stands else None

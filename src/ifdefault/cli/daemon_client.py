"""What the running engine says, and what it is told to do, for the subcommands.

Rules: where an engine runs it alone changes the kernel, so that a subcommand asks it instead of
doing the work itself. Its refusals are the same errors, with the same exit status, as ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ifdefault.cli.options import Options
from ifdefault.model.errors import ConfigError, HostError, Problem

if TYPE_CHECKING:
    from ifdefault.daemon.status import DaemonStatus
    from ifdefault.model.health import Decision

CHANGE_S = 120.0  # a thousand operations take seconds; it may wait for another ifdefault
LOOK_S = 5.0


def ask(options: Options, request: dict[str, Any], timeout_s: float = LOOK_S) -> dict[str, Any]:
    """The engine's answer; NotRunning where there is no engine, its refusal as our error."""
    from ifdefault.daemon.control import client

    reply = client.ask(options.run_dir, request, timeout_s)
    if not reply["ok"]:
        problems = [Problem(**problem) for problem in reply.get("problems", ())]
        kind = ConfigError if reply.get("exit_status") == ConfigError.exit_status else HostError
        raise kind(*problems)
    return reply


def change(options: Options, request: dict[str, Any]) -> dict[str, Any] | None:
    """Let the engine do it; None where there is none, so that we do it ourselves."""
    from ifdefault.daemon.control.client import NotRunning

    try:
        return ask(options, request, CHANGE_S)
    except NotRunning:
        return None


def standing(options: Options) -> DaemonStatus | None:
    """How the engine says that it stands; None where there is none."""
    from ifdefault.daemon.control.client import NotRunning

    try:
        told = ask(options, {"do": "status"})["standing"]
    except NotRunning:
        return None
    from ifdefault.daemon.status import DaemonStatus

    try:
        return DaemonStatus.from_json(told)
    except ValueError as error:
        what = f"the daemon speaks otherwise than we do: {error}"
        remedy = "restart it, it may be of another version"
        raise HostError(Problem("", what, remedy)) from None


def decision(options: Options) -> Decision | None:
    """What the engine has decided, which a plan must follow; None where there is none."""
    stands = standing(options)
    return stands.decision if stands else None

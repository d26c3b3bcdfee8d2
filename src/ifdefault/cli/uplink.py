"""`ifdefault uplink`: show or force the state of an uplink."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

import click

from ifdefault.cli import complete
from ifdefault.cli.duration import up_to
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.health import LONGEST_DRAIN_S, Forced

if TYPE_CHECKING:
    from ifdefault.model.report import DaemonStatus


@click.command()
@click.argument("name", required=False, shell_complete=complete.uplinks)
@click.argument("state", required=False, type=click.Choice(get_args(Forced)))
@click.option(
    "--timeout",
    "timeout_s",
    callback=up_to(LONGEST_DRAIN_S),
    metavar="TIME",
    help="With drain: force it down after this time, such as 30m or 2h.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    options: Options, name: str | None, state: str | None, timeout_s: int | None, as_json: bool
) -> None:
    """Show the forced and the observed state of each uplink, or force an uplink into a state.

    "up" uses it whatever the probes report, "down" doesn't use it, "drain" gives it no new
    connections and counts those that are left, "auto" follows the observed state. A forced state
    survives restarts.
    """
    from ifdefault.cli import daemon_client
    from ifdefault.cli.show.paths import at
    from ifdefault.ipc import codec
    from ifdefault.ipc.control.protocol import SetUplink

    if timeout_s and state != "drain":
        raise click.UsageError("--timeout is for drain; use ifdefault uplink NAME drain --timeout")
    if name and state:
        request = SetUplink(name, cast(Forced, state), timeout_s)
        changed = daemon_client.ask(options, request, daemon_client.CHANGE_S)
        if as_json:
            echo_json(codec.to_json(changed))
        elif changed.was == state and not timeout_s:
            limit = ", without a timeout" if state == "drain" else ""
            echo(f"{name}: already {state}{limit}", err=True)
        else:
            then = f", then down at {at(timeout_s)}" if timeout_s else ""
            echo(f"{name}: {changed.was} -> {state}{then}")
        return
    status = daemon_client.status(options)
    if status is None:
        remedy = "start ifdefault run, which monitors the uplinks"
        raise HostError(Problem("uplink", "no daemon runs", remedy))
    _show(status, name, as_json)


def _show(status: DaemonStatus, name: str | None, as_json: bool) -> None:
    from ifdefault.cli.show.paths import drain_lines
    from ifdefault.cli.show.table import table
    from ifdefault.ipc import codec
    from ifdefault.model.report_text import grouped

    paths = grouped(status.health)
    names = list(dict.fromkeys([*paths, *sorted(status.forced)]))
    if name and name not in names:
        remedy = f"use one of {', '.join(names)}"
        raise HostError(Problem("uplink", f'"{name}" is not an uplink', remedy))
    shown = [name] if name else names
    observed = {uplink: {h.family: h.state for h in paths.get(uplink, [])} for uplink in shown}
    if as_json:
        drains = {d.uplink: codec.to_json(d) for d in status.drains}
        echo_json(
            {
                u: {
                    "forced": status.forced.get(u, "auto"),
                    "observed": observed[u],
                    **({"drain": drains[u]} if u in drains else {}),
                }
                for u in shown
            }
        )
        return
    rows = [
        (
            uplink,
            status.forced.get(uplink, "auto"),
            ", ".join(f"IPv{family} {state}" for family, state in observed[uplink].items()),
        )
        for uplink in shown
    ]
    lines = table(("Uplink", "Forced", "Observed"), rows, ("Forced", "Observed"))
    echo_lines([*lines, *drain_lines(status, shown)])

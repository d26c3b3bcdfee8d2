"""`ifdefault history`: outages, availability, loss, round trips and traffic, from the history."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import click

from ifdefault.cli import complete
from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.cli.since import since

if TYPE_CHECKING:
    from ifdefault.model.config import UplinkConfig
    from ifdefault.model.usage import Usage
    from ifdefault.monitor.history.reader import Reader


@click.command()
@click.argument("uplink", required=False, default="", shell_complete=complete.uplinks)
@click.option(
    "--since",
    "since_at",
    callback=since,
    default="30d",
    show_default=True,
    metavar="TIME",
    help="Begin then: 12h, 7d, 4w, or a date such as 2026-11-01.",
)
@click.option("--outages", "only_outages", is_flag=True, help="Show nothing but the outages.")
@click.option(
    "--report",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="Print a report of this outage, for the provider.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    options: Options,
    uplink: str,
    since_at: float,
    only_outages: bool,
    report: int | None,
    as_json: bool,
) -> None:
    """Show the outages of the uplinks, or of one; by month how available they were, the loss and
    the round trip; and the traffic of the current month against its budget.

    All users may read it. `ifdefault monitor` keeps it.
    """
    from ifdefault.cli.show import history as show
    from ifdefault.monitor.history.reader import reading

    now, usage = time.time(), _usage(options)
    with reading(options.state_dir) as reader:
        if report is None:
            _check(reader, uplink)
            seen = show.read(reader, uplink, since_at, now, _uplinks(options), usage)
        else:
            text = _report(reader, report)
    # printed when it is no longer being read: a pager mustn't keep the monitor from writing
    if report is not None:
        echo(text, nl=False)
        return
    if as_json:
        echo_json(show.to_json(seen))
        return
    echo_lines(show.outages(seen) if only_outages else show.lines(seen))
    if not seen.seen:  # not even whether the monitor still runs
        echo("nothing has been recorded yet: the first minute isn't over", err=True)
    elif not show.is_current(seen):
        echo(
            f"nothing is known since {show.when(seen.seen)}: ifdefault monitor doesn't run",
            err=True,
        )


def _usage(options: Options) -> tuple[Usage, ...]:
    """What the engine has counted; () if none runs, or it doesn't answer: the history has more."""
    from ifdefault.cli import daemon_client
    from ifdefault.model.errors import HostError

    try:
        status = daemon_client.status(options)
    except HostError:
        return ()
    return status.usage if status else ()


def _report(reader: Reader, number: int) -> str:
    from ifdefault.model.errors import HostError, Problem
    from ifdefault.monitor.history.outage_report import outage_report

    outage = reader.outage(number)
    if outage is None:
        raise HostError(Problem(f"outage {number}", "unknown", "ifdefault history lists them"))
    return outage_report(reader, outage, socket.gethostname())


def _check(reader: Reader, uplink: str) -> None:
    known = sorted({path.uplink for path in reader.paths()})
    if uplink and uplink not in known:
        remedy = f"use {', '.join(known)}" if known else "there are none yet"
        raise click.UsageError(f'uplink "{uplink}" isn\'t in the history; {remedy}')


def _uplinks(options: Options) -> tuple[UplinkConfig, ...]:
    """For the budgets; () if this user may not read the config, or it is invalid."""
    from ifdefault import config
    from ifdefault.model.errors import ConfigError

    try:
        return config.read(options.config).uplinks
    except ConfigError as error:
        echo(f"without budgets: {error.problems[0]}", err=True)
        return ()

"""`ifdefault events`: what the daemon saw and did lately, a line each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ifdefault.cli.options import Options
from ifdefault.daemon.control.protocol import MOST_EVENTS, Events

if TYPE_CHECKING:
    from ifdefault.daemon.status import Event

_LOOK_S = 0.5  # how soon a new event is shown


@click.command()
@click.option(
    "-n",
    "--number",
    type=click.IntRange(1, MOST_EVENTS),
    default=50,
    show_default=True,
    metavar="N",
    help="Print this many events.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Continue to print new events until interrupted."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def command(options: Options, number: int, follow: bool, as_json: bool) -> None:
    """Print the daemon's latest events, oldest first."""
    from ifdefault.cli import daemon_client

    events = daemon_client.ask(options, Events(number)).events
    _show(events, as_json)
    while follow:
        time.sleep(_LOOK_S)  # the pace of the display
        fresh = tuple(_after(events[-1] if events else None, options))
        _show(fresh, as_json)
        events += fresh


def _after(last: Event | None, options: Options) -> Iterator[Event]:
    """What happened since; nothing while no daemon runs, since another may follow it."""
    from ifdefault.cli import daemon_client
    from ifdefault.daemon.control.client import NotRunning

    for limit in (20, MOST_EVENTS):
        try:
            told = daemon_client.ask(options, Events(limit)).events
        except NotRunning:
            return
        if last is None or last in told or len(told) < limit:
            break
    yield from told[told.index(last) + 1 :] if last in told else told


def _show(events: Iterable[Event], as_json: bool) -> None:
    from ifdefault.ipc import codec

    for event in events:
        if as_json:
            click.echo(json.dumps(codec.to_json(event)))
        else:
            at = datetime.fromtimestamp(event.at).astimezone()
            when = at.isoformat(timespec="milliseconds")
            click.echo(f"{when}  {event.kind:<8}  {event.text}")

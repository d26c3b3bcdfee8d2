"""`ifdefault events`: the daemon's latest events, one per line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ifdefault.cli.options import Options
from ifdefault.cli.show.output import echo, echo_json, echo_styled
from ifdefault.cli.show.style import fold, is_terminal, paint_states, width
from ifdefault.ipc.control.protocol import LONGEST_WAIT_S, MOST_EVENTS, Events
from ifdefault.model.text import escaped

if TYPE_CHECKING:
    from ifdefault.model.report import Event

_NARROW = 40  # text isn't folded in a narrower column
_NEW_STATE = re.compile(r" -> \w+")
_AGAIN_S = 0.5  # between looks for a daemon


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
    """Print the latest events, oldest first. Without a daemon, those that were saved."""
    from ifdefault.cli import daemon_client
    from ifdefault.ipc.control.client import NotRunning

    try:
        reply = daemon_client.ask(options, Events(number))
        events, last = reply.events, reply.last
    except NotRunning:
        if (saved := _saved(options)) is None:
            raise
        echo("no daemon runs: these events were saved", err=True)
        events = saved[-number:]
        last = max((event.serial for event in saved), default=-1)
    _show(events, as_json)
    while follow:
        events, last = _after(last, options)
        _show(events, as_json)


def _saved(options: Options) -> tuple[Event, ...] | None:
    from ifdefault.daemon.event_log import saved_events
    from ifdefault.host.store import Store

    return saved_events(Store(options.state_dir))


def _after(last: int, options: Options) -> tuple[tuple[Event, ...], int]:
    """The events after this serial, and the greatest serial. Waits for one; while no daemon runs,
    for a daemon, since it may be restarted."""
    from ifdefault.cli import daemon_client
    from ifdefault.ipc.control.client import Closed, NotRunning

    request = Events(MOST_EVENTS, last, LONGEST_WAIT_S)
    try:
        reply = daemon_client.ask(options, request, LONGEST_WAIT_S + daemon_client.LOOK_S)
    except (NotRunning, Closed):
        time.sleep(_AGAIN_S)
        return (), last
    return reply.events, reply.last


def _show(events: Iterable[Event], as_json: bool) -> None:
    from ifdefault.ipc import codec

    for event in events:
        if as_json:
            echo_json(codec.to_json(event), indent=None)
        else:
            at = datetime.fromtimestamp(event.at).astimezone()
            echo_styled("\n".join(_rows(at, escaped(event.kind), escaped(event.text))))


def _rows(at: datetime, kind: str, text: str) -> Iterator[str]:
    """An event; on a terminal without the offset of the local time, and folded beside its kind."""
    columns = width() if is_terminal() else 0
    when = at.isoformat(timespec="milliseconds")
    if columns:
        when = when[:23].replace("T", " ")
    head = f"{when}  {kind:<8}  "
    room = columns - len(head)
    if columns and room < _NARROW:
        rows = fold(head + text, columns, " " * 4)
    else:
        below = " " * len(head)
        first, *others = fold(text, room) if columns else [text]
        rows = [head + first, *(below + row for row in others)]
    for row in rows:
        yield _NEW_STATE.sub(lambda match: paint_states(match[0]), row)

"""`ifdefault replay`: replay what `ifdefault run --record` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ifdefault.cli.show.output import echo, echo_json

if TYPE_CHECKING:
    from ifdefault.daemon.replay import Replay, Turn


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--turn",
    type=click.IntRange(1),
    metavar="N",
    help="Print only turn N, with each of its probes.",
)
@click.option("--until", metavar="TEXT", help="Stop after the first turn that contains TEXT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per turn and line.")
def command(file: Path, turn: int | None, until: str | None, as_json: bool) -> None:
    """Feed a record to the daemon's controller again, and print its decisions turn by turn.

    Nothing is changed, and root isn't needed.
    """
    from ifdefault.cli.show import turns as show
    from ifdefault.daemon.replay import Replay

    replay = Replay(file)
    turns = replay.turns()
    if turn is not None:
        turns = _only(turn, replay, file)
    if until is not None:
        turns = _until(until, turns)
    if as_json:
        for shown in turns:
            echo_json(show.to_json(shown), indent=None)
    else:
        header = replay.header
        begun = datetime.fromtimestamp(header.started_at, UTC).isoformat(timespec="seconds")
        echo(f"recorded by ifdefault {header.ifdefault} from {begun}")
        blocks = (
            show.folded(turns) if turn is None else (show.lines(t, each_probe=True) for t in turns)
        )
        for lines in blocks:
            echo("\n".join(lines))
    if replay.cut_off:
        echo(f"ifdefault: warning: {replay.cut_off}", err=True)


def _only(number: int, replay: Replay, file: Path) -> Iterator[Turn]:
    from ifdefault.daemon.replay import RecordError
    from ifdefault.model.errors import Problem

    last = 0
    for turn in replay.turns():
        last = turn.number
        if last == number:
            yield turn
            return
    raise RecordError(Problem(str(file), f"has no turn {number}", f"use 1 to {last}"))


def _until(text: str, turns: Iterator[Turn]) -> Iterator[Turn]:
    from ifdefault.cli.show.turns import lines

    for turn in turns:
        yield turn
        if any(text in line for line in lines(turn)):
            return

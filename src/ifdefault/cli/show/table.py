"""Output that several subcommands share."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ifdefault.cli.show.output import echo, echo_json
from ifdefault.model.errors import Problem
from ifdefault.model.text import escaped_lines

if TYPE_CHECKING:
    from ifdefault.model.changes import Changes

_GAP, _INDENT = "  ", 4
_NARROW = 24  # text isn't wrapped in a narrower column


def print_problems(problems: Iterable[Problem]) -> None:
    """Print errors and warnings to stderr."""
    for problem in problems:
        echo(f"{'warning' if problem.warning else 'error'}: {problem}", err=True)


def problems_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(problem) for problem in problems]


def print_applied(changes: Changes, confirm_s: int | None, *, quiet: bool, as_json: bool) -> None:
    """Print what `apply`, or the daemon for it, has done."""
    if as_json:
        from ifdefault.ipc import codec

        echo_json(codec.to_json(changes))
        return
    print_problems(changes.problems)
    if quiet:
        return
    for line in (*changes.operations, *changes.dns):
        echo(line)
    count, names = len(changes.operations), len(changes.dns)
    done = [f"{count} operations performed"] if count else []
    done += [f"{names} changes of the DNS"] if names else []
    uplinks = f"{changes.ready} of {changes.uplinks} uplinks in use"
    echo(f"{', '.join(done) or 'nothing to do'}; {uplinks}", err=True)
    if confirm_s and count:
        from ifdefault.model.changes import undone_in

        echo(undone_in(confirm_s), err=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, with columns as wide as their longest cell.

    Only the last column may be long. Where it doesn't fit into the terminal, it is wrapped, or put
    on lines of its own below its row; "\n" separates its parts, which then begin new lines.
    """
    width = shutil.get_terminal_size().columns
    rows = [list(map(escaped_lines, row)) for row in rows]
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads) - 1)]
    return [line for row in (heads, *rows) for line in _row(row, widths, width)]


def _row(row: Sequence[str], widths: Sequence[int], width: int) -> list[str]:
    lines = [""]
    for cell, cell_width in zip(row, widths, strict=False):
        if lines[-1].strip() and len(lines[-1]) + len(cell) > width:
            lines.append(" " * _INDENT)
        lines[-1] += cell.ljust(cell_width) + _GAP
    start, last = len(lines[-1]), row[-1]
    room = width - start
    if len(_joined(last)) > room and (room < _NARROW or len(max(last.split(), key=len)) > room):
        lines.append("")
        start = _INDENT
    for part in _fold(last, width - start):
        lines[-1] = lines[-1].ljust(start) + part
        lines.append("")
    return [line.rstrip() for line in lines if line.strip()]


def _joined(text: str) -> str:
    return text.replace("\n", ", ")


def _fold(text: str, width: int) -> list[str]:
    """A text as lines that fit into a width, if its words do."""
    if len(_joined(text)) <= width:
        return [_joined(text)]
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=_GAP, break_long_words=False, break_on_hyphens=False
    )
    return [line for part in text.split("\n") for line in wrapper.wrap(part)]

"""Output that several subcommands share."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ifdefault.cli.show import style
from ifdefault.cli.show.output import echo, echo_json, echo_lines
from ifdefault.model.errors import Problem
from ifdefault.model.text import escaped_lines

if TYPE_CHECKING:
    from ifdefault.model.changes import Changes

_GAP, _INDENT = "  ", 4
_NARROW = 24  # text isn't wrapped in a narrower column
Painter = Callable[[str], str]


def print_problems(problems: Iterable[Problem]) -> None:
    """Print errors, warnings and hints to stderr."""
    for problem in problems:
        line = style.Line(f"error: {problem}", "bad")
        if problem.hint:
            line = style.Line(f"hint: {problem}")
        elif problem.warning:
            line = style.Line(f"warning: {problem}", "warn")
        echo_lines([line], err=True)


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


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], states: Container[str] = ("State",)
) -> list[str]:
    """The lines of a table, with columns as wide as their longest cell.

    Only the last column may be long. Where it doesn't fit into the terminal, it is wrapped, or put
    on lines of its own below its row; "\n" separates its parts, which then begin new lines. States
    in the columns with these heads have colours.
    """
    width = style.width()
    rows = [list(map(escaped_lines, row)) for row in rows]
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads) - 1)]
    bold = [partial(style.paint, style="head")] * len(heads)
    painters = [style.paint_states if head in states else str for head in heads]
    lines = _row(heads, widths, width, bold)
    return lines + [line for row in rows for line in _row(row, widths, width, painters)]


@dataclass(slots=True)
class _Line:
    """What it is made of, and what that looks like."""

    text: str = ""
    painted: str = ""

    def add(self, text: str, paint: Painter = str) -> None:
        self.text += text
        self.painted += paint(text)

    def begin_at(self, column: int) -> None:
        self.add(" " * (column - len(self.text)))


def _row(
    row: Sequence[str], widths: Sequence[int], width: int, painters: Sequence[Painter]
) -> list[str]:
    lines = [_Line()]
    for cell, cell_width, painter in zip(row, widths, painters, strict=False):
        if lines[-1].text.strip() and len(lines[-1].text) + len(cell) > width:
            lines.append(_Line())
            lines[-1].begin_at(_INDENT)
        lines[-1].add(cell, painter)
        lines[-1].add(" " * (cell_width - len(cell)) + _GAP)
    start, last = len(lines[-1].text), row[-1]
    room = width - start
    if len(_joined(last)) > room and (room < _NARROW or len(max(last.split(), key=len)) > room):
        lines.append(_Line())
        start = _INDENT
    for part in _fold(last, width - start):
        lines[-1].begin_at(start)
        lines[-1].add(part, painters[-1])
        lines.append(_Line())
    return [style.Painted(line.painted.rstrip()) for line in lines if line.text.strip()]


def _joined(text: str) -> str:
    return text.replace("\n", ", ")


def _fold(text: str, width: int) -> list[str]:
    """A text as lines that fit into a width, if its words do."""
    if len(_joined(text)) <= width:
        return [_joined(text)]
    return [line for part in text.split("\n") for line in style.fold(part, width)]

"""docs/figures.md, from the results' files.

Rules: nothing is added that isn't in a file; a figure that misses its target says so in bold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench import results
from bench.results import Figure, Machine, Report

PAGE = Path(__file__).parents[1] / "docs" / "figures.md"

_HEAD = """\
# Figures

What `./dev bench` measured. This page is rendered from `bench/results/*.json`, which hold every
sample; don't edit it. Everything runs in the lab: client, Internet, providers with source filters
and the host share the cores of one machine, so absolute numbers are low and ratios are what counts.
"""


def render(names: Sequence[str]) -> str:
    parts = [_HEAD]
    for name in names:
        if found := results.read(name):
            parts.append("\n".join(_section(name, *found)) + "\n")
        else:
            parts.append(f"## {name}\n\nNot measured yet: run `./dev bench {name}`.\n")
    return "\n".join(parts)


def _section(name: str, report: Report, machine: Machine) -> Iterator[str]:
    yield f"## {report.title}"
    yield f"\n{report.how}\n"
    yield from _markdown(FIGURE_HEADS, map(figure_row, report.figures))
    if report.image:
        yield f"\n![{report.title}]({report.image})"
    for table in report.tables:
        yield f"\n{table.title}\n"
        yield from _markdown(table.heads, table.rows)
    if report.notes:
        yield ""
    for note in report.notes:
        yield f"- {note}"
    yield (
        f"\n`./dev bench {name}` on {machine.date}: {machine.cores} cores of {machine.cpu}, Linux"
        f" {machine.kernel}, Python {machine.python}, nft {machine.nft}; load {machine.load:g}"
        " before it began."
    )


FIGURE_HEADS = ("", "measured", "target", "")


def figure_row(figure: Figure) -> tuple[str, ...]:
    if figure.target is None:
        target, verdict = "", ""
    else:
        target = f"{'≥' if figure.at_least else '≤'} {number(figure.target, figure.unit)}"
        verdict = "met" if figure.met else "**NOT met**"
    return figure.what, number(figure.value, figure.unit), target, verdict


def number(value: float, unit: str = "") -> str:
    """As many digits as mean something."""
    if value == int(value):
        text = f"{value:,.0f}"
    elif unit in ("", "ratio"):
        text = f"{value:.3f}"
    else:
        text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return text if unit in ("", "ratio") else f"{text} {unit}"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """The same for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )

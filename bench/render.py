"""docs/figures.md and its plots, and the tables in docs/peers.md, from the results' files.

Rules: nothing is added that isn't in a file; a figure that misses its target is printed in bold.
Equal results give equal bytes. Long tables are folded; OPEN names those that aren't.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill

from bench import excerpts, headlines, plots, results
from bench.results import Figure, Machine, Report

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "figures.md"
PEERS = DOCS / "peers.md"  # what it quotes of the results
Found = Mapping[str, tuple[Report, Machine]]

# tables that a section shows unfolded, by the beginning of their titles
OPEN = {
    "failover": ("Blackhole",),
    "dns_clients": ("Blackhole; medians",),
    "dns_shared": ("Each server",),
    "dns_speed": ("Answers per second",),
    "judge": ("Ours",),
}

_HEAD = """\
# Figures

What `./dev bench` measured. Everything runs in the lab: clients, the Internet, providers with
source filters and the host are network namespaces on one machine and share its cores. Absolute
numbers are therefore low; compare ratios, and peers measured in the same run.

This page and its plots are rendered from `bench/results/*.json`, which hold every sample, by
`./dev bench --render`. Don't edit them. `./dev bench NAME` repeats one measurement.
"""


def write(names: Sequence[str]) -> None:
    """Write the pages and the plots."""
    for path, text in files(names).items():
        path.write_text(text, encoding="utf-8")


def files(names: Sequence[str]) -> dict[Path, str]:
    """The pages and the plots, by path."""
    found = {name: result for name in names if (result := results.read(name))}
    drawn = {
        DOCS / f"{name}.svg": draw(found[name][0])
        for name, draw in plots.PLOTS.items()
        if name in found
    }
    reports = {name: report for name, (report, _) in found.items()}
    quoting = excerpts.fill(PEERS.read_text(encoding="utf-8"), reports, _markdown)
    return {PAGE: render(names, found), PEERS: quoting, **drawn}


def render(names: Sequence[str], found: Found) -> str:
    parts = [_HEAD, "\n".join(_machines([machine for _, machine in found.values()])) + "\n"]
    parts.append(
        "\n".join(_headlines({name: report for name, (report, _) in found.items()})) + "\n"
    )
    for name in names:
        if name in found:
            parts.append("\n".join(_section(name, *found[name])) + "\n")
        else:
            parts.append(f"## {name}\n\nNot measured yet: run `./dev bench {name}`.\n")
    return "\n".join(parts)


def _machines(machines: Sequence[Machine]) -> Iterator[str]:
    """When and on which machines everything was measured."""
    if not machines:
        return
    dates = sorted({machine.date for machine in machines})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    kernels = ", ".join(sorted({machine.kernel for machine in machines}))
    hosts = ", ".join(sorted({f"{machine.cores} cores of {machine.cpu}" for machine in machines}))
    pythons = ", ".join(sorted({machine.python for machine in machines}))
    nfts = ", ".join(sorted({machine.nft for machine in machines}))
    yield f"Measured {when} on {hosts}; Linux {kernels}; Python {pythons}; nft {nfts}."


# --- headlines ----------------------------------------------------------------------------


def _headlines(reports: Mapping[str, Report]) -> Iterator[str]:
    met = [f.met for report in reports.values() for f in report.figures if f.met is not None]
    yield "## Headline figures"
    yield f"\n{sum(met)} of {len(met)} targets are met; **bold** is a target that is missed."
    for group in headlines.GROUPS:
        rows = [_headline(found) for found in headlines.find(group, reports)]
        yield ""
        yield from _markdown((group.title, "ifdefault", "target", "peers"), rows)


def _headline(found: headlines.Found) -> tuple[str, ...]:
    value, target = number(found.figure.value, found.figure.unit), target_of(found.figure)
    peers = ", ".join(
        f"{name} {number(peer.value, peer.unit) if isinstance(peer, Figure) else peer}"
        for name, peer in found.peers
    )
    what = f"[{found.headline.what}](#{_anchor(found.section)})"
    return what, f"**{value}**" if found.figure.met is False else value, target, peers


def _anchor(title: str) -> str:
    """The name that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# --- sections -----------------------------------------------------------------------------


def _section(name: str, report: Report, machine: Machine) -> Iterator[str]:
    first, *more = (_wrapped(paragraph) for paragraph in report.how.split("\n\n"))
    yield f"## {report.title}"
    yield f"\n{first}\n"
    yield from _figures(report.figures)
    if name in plots.PLOTS:
        yield f"\n![{report.title}]({name}.svg)"
    is_open = OPEN.get(name, ())
    for table in report.tables:
        if table.title.startswith(is_open or "\0"):
            yield from ("", f"{table.title}:", "")
            yield from _markdown(table.heads, table.rows)
    if report.notes:
        yield ""
    for note in report.notes:
        yield f"- {note}"
    if more:
        yield from _folded("How it was measured", ["\n\n".join(more)])
    for table in report.tables:
        if not table.title.startswith(is_open or "\0"):
            yield from _folded(table.title, _markdown(table.heads, table.rows))
    yield (
        f"\n`./dev bench {name}`, {machine.date}, Linux {machine.kernel}; load {machine.load:g}"
        " before it began."
    )


def _wrapped(paragraph: str) -> str:
    return fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _folded(summary: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"\n<details><summary>{summary}</summary>\n"
    yield from lines
    yield "\n</details>"


def _figures(figures: Sequence[Figure]) -> Iterator[str]:
    """Figures called "SUBJECT: MEASURE" become a row a subject, if it has several of them."""
    counts = Counter(map(_subject, figures))
    subjects = [subject for subject, count in counts.items() if subject and count > 1]
    plain = [figure for figure in figures if _subject(figure) not in subjects]
    split = [figure for figure in figures if _subject(figure) in subjects]
    if plain:
        yield from _markdown(FIGURE_HEADS, map(figure_row, plain))
    if split:
        if plain:
            yield ""
        measures = list(dict.fromkeys(_measure(figure) for figure in split))
        cells = {(_subject(figure), _measure(figure)): _cell(figure) for figure in split}
        rows = [(s, *(cells.get((s, m), "") for m in measures)) for s in subjects]
        yield from _markdown(("", *measures), rows)


def _subject(figure: Figure) -> str:
    return figure.what.rpartition(": ")[0]


def _measure(figure: Figure) -> str:
    return figure.what.rpartition(": ")[2]


def _cell(figure: Figure) -> str:
    value = number(figure.value, figure.unit)
    if figure.target is None or (figure.target == 0 and figure.met):
        return value
    return f"{value} ({target_of(figure)})" if figure.met else f"**{value}** ({target_of(figure)})"


FIGURE_HEADS = ("", "measured", "target", "")


def figure_row(figure: Figure) -> tuple[str, ...]:
    outcome = {None: "", True: "met", False: "**missed**"}[figure.met]
    return figure.what, number(figure.value, figure.unit), target_of(figure), outcome


def target_of(figure: Figure) -> str:
    if figure.target is None:
        return ""
    if figure.target == 0 and not figure.at_least:
        return "0"
    return f"{'≥' if figure.at_least else '≤'} {number(figure.target, figure.unit)}"


def number(value: float, unit: str = "") -> str:
    """As many digits as are significant."""
    if value == int(value):
        text = f"{value:,.0f}"
    elif unit in ("", "ratio"):
        text = f"{value:,.0f}" if value >= 1000 else f"{value:.3f}"
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

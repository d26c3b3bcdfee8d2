"""Tables of the results that other documents quote.

    <!-- BENCH, TABLE: COLUMN; COLUMN=SHOWN where COLUMN is VALUE -->
    …
    <!-- end of the table -->

Rules: what stands between the comments is rendered from the results; TABLE is how its title begins.
A bench, table or column that isn't there is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.results import Report

Markdown = Callable[[Sequence[str], Iterable[Sequence[str]]], Iterable[str]]

_EXCERPT = re.compile(
    r"(?P<first><!-- (?P<bench>\w+), (?P<table>[^:]+): (?P<columns>.+?)"
    r"(?: where (?P<key>.*?) is (?P<value>.+?))? -->\n).*?(?P<last><!-- end of the table -->)",
    re.DOTALL,
)


def fill(text: str, reports: Mapping[str, Report], markdown: Markdown) -> str:
    """The document with its tables as the results have them."""

    def excerpt(found: re.Match[str]) -> str:
        report = reports[found["bench"]]
        table = next(t for t in report.tables if t.title.startswith(found["table"]))
        wanted = [column.partition("=") for column in found["columns"].split("; ")]
        heads = [shown or column for column, _, shown in wanted]
        at = [table.heads.index(column) for column, _, _ in wanted]
        rows = table.rows
        if found["value"]:
            key = table.heads.index(found["key"])
            rows = tuple(row for row in rows if row[key] == found["value"])
        lines = markdown(heads, [[row[n] for n in at] for row in rows])
        return "\n".join((found["first"], *lines, "", found["last"]))

    return _EXCERPT.sub(excerpt, text)

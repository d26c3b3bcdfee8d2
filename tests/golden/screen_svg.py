"""Rows of a screen as an SVG, for the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ifdefault.cli.show.chart import Row
from ifdefault.cli.show.style import Style

_CELL, _LINE, _SIZE, _MARGIN = 8, 18, 13, 12  # pixels
_INK, _PAPER = "#d0d0d0", "#16181d"
_FILLS: dict[Style, str] = {
    "head": "#ffffff",
    "good": "#7ec97e",
    "warn": "#e5c07b",
    "bad": "#f07178",
    "note": "#6fc3df",
    "mark": _PAPER,
}


def picture(rows: Iterable[Row], columns: int, title: str) -> str:
    rows = list(rows)
    width, height = columns * _CELL + 2 * _MARGIN, len(rows) * _LINE + 2 * _MARGIN
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
            f' font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{_SIZE}">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="6" fill="{_PAPER}"/>',
    ]
    for number, row in enumerate(rows):
        at, y = 0, _MARGIN + _LINE * number + _SIZE
        for text, style in row.pieces:
            if text.strip():
                lines += _piece(text, style, _MARGIN + at * _CELL, y)
            at += len(text)
    return "\n".join([*lines, "</svg>", ""])


def _piece(text: str, style: Style | None, x: int, y: int) -> Iterable[str]:
    length = len(text) * _CELL
    if style == "mark":
        yield (
            f'<rect x="{x}" y="{y - _SIZE}" width="{length}" height="{_LINE - 1}" fill="{_INK}"/>'
        )
    fill = _FILLS[style] if style else _INK
    bold = ' font-weight="bold"' if style in ("head", "mark") else ""
    yield (
        f'<text x="{x}" y="{y}" fill="{fill}"{bold} textLength="{length}"'
        f' xml:space="preserve">{escape(text)}</text>'
    )

"""Rows of styled cells, bars and sparklines for a screen of a fixed size.

Rules: text from values alone. A row never is wider than the screen. Where the terminal's encoding
has no block elements, bars and sparklines are ASCII.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from ifdefault.cli.show.style import Painted, Style, paint
from ifdefault.model.text import escaped

_BLOCKS = "▁▂▃▄▅▆▇█"  # U+2581 to U+2588
_EIGHTHS = "▏▎▍▌▋▊▉█"  # U+258F to U+2588
_ASCII_LEVELS = "_.-=+*%#"
_CUT = "…"


@cache
def has_blocks() -> bool:
    """Whether the encoding of stdout has block elements."""
    try:
        (_BLOCKS + _EIGHTHS + "×…").encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


@dataclass(slots=True)
class Row:
    """Pieces of text, each in a style, side by side."""

    pieces: list[tuple[str, Style | None]] = field(default_factory=list)

    def add(self, text: str, style: Style | None = None, width: int = 0) -> Row:
        """Append a text, escaped and padded to a width: on the left if that is negative."""
        text = escaped(text)
        self.pieces.append((text, style))
        if (room := abs(width) - len(text)) > 0:
            place = len(self.pieces) - (width < 0)
            self.pieces.insert(place, (" " * room, None))
        return self

    def extend(self, pieces: Iterable[tuple[str, Style | None]]) -> Row:
        self.pieces += pieces
        return self

    @property
    def width(self) -> int:
        return sum(len(text) for text, _ in self.pieces)

    def painted(self, columns: int) -> Painted:
        """As it is shown; what doesn't fit is cut off, and an ellipsis says so."""
        left, shown = columns, []
        is_cut = len("".join(text for text, _ in self.pieces).rstrip()) > columns
        for text, style in self.pieces:
            part = text[:left]
            left -= len(part)
            if is_cut and not left and part:
                mark = _CUT if has_blocks() else "~"
                shown.append(paint(part[:-1] + mark, style))
                break
            shown.append(paint(part, style))
        return Painted("".join(shown).rstrip(" "))


def bar(ratio: float, width: int) -> str:
    """A horizontal bar, as long as the ratio says; whatever isn't zero is seen."""
    eighths = round(max(0.0, min(ratio, 1.0)) * width * 8)
    if ratio > 0:
        eighths = max(eighths, 1)
    if not has_blocks():
        return ("#" * -(-eighths // 8)).ljust(width)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest - 1] if rest else "")).ljust(width)


def level(ratio: float) -> str:
    """One cell of a sparkline."""
    levels = _BLOCKS if has_blocks() else _ASCII_LEVELS
    return levels[max(0, min(round(ratio * len(levels) - 0.5), len(levels) - 1))]


def columns_chart(ratios: Sequence[float | None], height: int) -> list[str]:
    """Rows of a chart that is several rows high, the top one first; None is a gap."""
    rows = []
    for row in range(height - 1, -1, -1):
        cells = []
        for ratio in ratios:
            filled = -1.0 if ratio is None else ratio * height - row
            if ratio is not None and row == 0:
                filled = max(filled, 0.01)
            cells.append(" " if filled <= 0 else level(min(filled, 1.0)))
        rows.append("".join(cells))
    return rows


LOST = "×"


def lost_mark() -> str:
    return LOST if has_blocks() else "x"

"""The screen of `status --watch`: a text that is drawn over the last one, and scrolled with keys.

Rules: nothing is cut: a long line is continued on the next row. The keys are those of less.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from ifdefault.cli.show.style import shown
from ifdefault.cli.show.terminal import (
    BOTTOM,
    LINE_DOWN,
    LINE_UP,
    PAGE_DOWN,
    PAGE_UP,
    TOP,
    Terminal,
    size,
)

_STYLE = re.compile(r"\x1b\[[0-9;]*m")  # SGR


class Screen(Terminal):
    """Use as a context. Without a terminal to read keys from, nothing can be scrolled."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[str] = ()
        self._top = 0  # the first row that is shown

    def show(self, lines: Sequence[str]) -> None:
        self._lines = list(shown(lines))
        self._draw()

    def wait(self, seconds: float) -> bool:
        """Scroll with the keys that are pressed in this time; False if it is the one to quit. It
        ends early if the terminal has another size, which lines were made for."""
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            keys = self.keys(deadline_s)
            if self.gone or {"q", "Q"} & {*keys}:
                return False
            if not keys:
                return True
            for key in keys:
                self._scroll(key)
            self._draw()
        return True

    def _scroll(self, key: str) -> None:
        page = max(_height() - 1, 1)
        for keys, rows in (
            (LINE_DOWN, 1),
            (LINE_UP, -1),
            (PAGE_DOWN, page),
            (PAGE_UP, -page),
            (TOP, -self._top),
            (BOTTOM, len(self._rows())),
        ):
            if key in keys:
                self._top = self._within(self._top + rows, self._rows())

    def _rows(self) -> list[str]:
        columns = size()[1]
        return [row for line in self._lines for row in _cut(line, columns)]

    def _within(self, top: int, rows: Sequence[str]) -> int:
        return max(0, min(top, len(rows) - _height()))

    def _draw(self) -> None:
        rows = self._rows()
        top = self._top = self._within(self._top, rows)
        shown = rows[top : top + _height()]
        last = ""
        if len(shown) < len(rows):
            keys = "; j, k, space and b scroll, q quits" if self.keyboard >= 0 else ""
            last = f"lines {top + 1}-{top + len(shown)} of {len(rows)}{keys}"
        self.draw(shown, last[: size()[1]])


def _cut(line: str, columns: int) -> list[str]:
    """A line as rows of so many characters; only one that fits has styles, which take no room."""
    plain = _STYLE.sub("", line)
    if len(plain) <= columns:
        return [line]
    return [plain[start : start + columns] for start in range(0, len(plain), columns)]


def _height() -> int:
    """How many rows of text are shown; the last row of the terminal is for the cursor."""
    return max(size()[0] - 1, 1)

"""Colours and widths: what a line looks like on a terminal.

Rules: colour is never the only carrier of a meaning, and only the 16 colours are used that a
terminal's own theme defines, light or dark. There is none where NO_COLOR is set (no-color.org),
where the terminal is dumb, and elsewhere than on a terminal unless CLICOLOR_FORCE is set. What
others named is escaped before it gets a style.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Literal

from ifdefault.model.text import escaped

Style = Literal["head", "good", "warn", "bad", "note", "mark"]
_SGR: dict[Style, str] = {  # ECMA-48
    "head": "1",
    "good": "32",
    "warn": "33",
    "bad": "31",
    "note": "36",
    "mark": "1;7",
}
STATES: dict[str, Style] = {
    "up": "good",
    "current": "good",
    "answers": "good",
    "degraded": "warn",
    "recovering": "warn",
    "pending": "warn",
    "drain": "warn",
    "drains": "warn",
    "down": "bad",
    "failing": "bad",
}
_WORD = re.compile(r"\b(" + "|".join(STATES) + r")\b")
_INDENT = "  "  # of what a line is continued on


class Line(str):
    """A line of text, not escaped yet, and the style that it has as a whole."""

    __slots__ = ("style",)
    style: Style | None

    def __new__(cls, text: str, style: Style | None = None) -> Line:
        line = super().__new__(cls, text)
        line.style = style
        return line


class Painted(str):
    """A line as it is shown: escaped, no wider than the terminal, with styles."""

    __slots__ = ()


def is_coloured(*, err: bool = False) -> bool:
    """Whether stdout, or stderr, shows colours."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and is_terminal(err=err)


def is_terminal(*, err: bool = False) -> bool:
    stream = sys.stderr if err else sys.stdout
    return bool(stream and stream.isatty())


def width() -> int:
    """Of the terminal; 80 without one, or what COLUMNS says."""
    return shutil.get_terminal_size().columns


def paint(text: str, style: Style | None, *, err: bool = False) -> str:
    """A text that is escaped, in a style."""
    if style is None or not text or not is_coloured(err=err):
        return text
    return f"\x1b[{_SGR[style]}m{text}\x1b[0m"


def paint_states(text: str) -> str:
    """The same with each word in it that is a state in the style of that."""
    return _WORD.sub(lambda word: paint(word[0], STATES[word[0]]), text)


def shown(lines: Iterable[str], *, err: bool = False) -> Iterator[Painted]:
    """Lines as they are shown. Elsewhere than on a terminal they are as long as they are."""
    columns = width() if is_terminal(err=err) else None
    for line in lines:
        if isinstance(line, Painted):
            yield line
            continue
        style = line.style if isinstance(line, Line) else None
        text = escaped(line)
        for row in fold(text, columns) if columns and len(text) > columns else [text]:
            yield Painted(paint(row, style, err=err))


def fold(text: str, columns: int, indent: str = "") -> list[str]:
    """A line as rows that fit, if its words do; continued below its beginning, and some more."""
    begin = text[: len(text) - len(text.lstrip())]
    wrapper = textwrap.TextWrapper(
        columns,
        initial_indent=begin,
        subsequent_indent=indent or begin + _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapper.wrap(text.lstrip()) or [""]

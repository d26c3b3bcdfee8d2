"""Where the commands print: text for people, JSON for programs.

Rules: all output passes here. What others named (processes, control groups, DNS answers, files) is
printed, never obeyed: control and formatting characters are escaped, except line breaks and tabs.
A text with styles is escaped before it gets them (`style`).
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from typing import Any

import click

from ifdefault.cli.show.style import Style, is_coloured, paint, shown
from ifdefault.model.text import escaped_lines


def echo(text: str, style: Style | None = None, *, err: bool = False, nl: bool = True) -> None:
    """Print to stdout, or to stderr, as it is or in a style."""
    echo_styled(paint(escaped_lines(text), style, err=err), err=err, nl=nl)


def echo_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines with the styles that they have, folded on a terminal."""
    echo_styled("\n".join(shown(lines, err=err)), err=err)


def echo_styled(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text that is escaped, or all ours; its styles are shown on a terminal."""
    click.echo(_encodable(text, err=err), err=err, nl=nl, color=is_coloured(err=err))


def _encodable(text: str, *, err: bool = False) -> str:
    """The text, with escapes for what the encoding of stdout or stderr doesn't have."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding, "replace")


def echo_json(value: Any, indent: int | None = 1) -> None:
    text = json.dumps(value, indent=indent)  # ASCII; it escapes all controls but one
    click.echo(text.replace("\x7f", "\\u007f"))


def echo_usage(error: click.ClickException) -> None:
    """Print an error of the command line, as click does it."""
    text = io.StringIO()
    error.show(text)
    echo(text.getvalue(), err=True, nl=False)

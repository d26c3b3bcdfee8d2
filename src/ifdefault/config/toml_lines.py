"""The line of each key of a TOML text, which tomllib doesn't report.

Rules: the text has already been parsed by tomllib, so nothing is checked here. A path names tables,
keys and list items as tomllib's result does: `("uplink", "isp-a", "gateways", 1)`, and
`("dns", "name", 1, "ttl")` below the second `[[dns.name]]`. If a table is named more than once, its
first line counts.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

KeyPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""
    (?P<blank> [\ \t\r]+ | \#[^\n]* )
    | \"{3} (?: \\. | [^\\] )*? \"{3,5} | '{3} .*? '{3,5}  # may span lines
    | " (?: \\. | [^"\\] )* " | ' [^']* '
    | [][{}=,.\n]
    | [^][{}=,.\s\#"']+
    """,
    re.DOTALL | re.VERBOSE,
)


def locate(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every table, key and list item of a valid TOML text."""
    scan = _Scan(text)
    scan.document()
    return scan.lines


def line_of(lines: dict[KeyPath, int], path: Sequence[str | int]) -> int:
    """The line of `path`, or of the innermost part around it that has one."""
    for length in range(len(path), 0, -1):
        if line := lines.get(tuple(path[:length])):
            return line
    return 1


def key(path: KeyPath) -> str:
    """A path as messages show it: "forward[0].to[1]"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


class _Scan:
    """One pass over the tokens; each key found is added to `lines`."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._tables: dict[KeyPath, int] = {}  # the tables of each list so far
        self._tokens: list[tuple[str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            if not match["blank"]:
                self._tokens.append((match[0], line))
            line += match[0].count("\n")
        self._tokens.append(("", line))
        self._at = 0

    def document(self) -> None:
        table: KeyPath = ()
        while self._peek():
            if self._peek() == "\n":
                self._take()
            elif self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        """Read `[table]`, or `[[table]]`, which adds a table to its list."""
        self._take()
        _, line = self._tokens[self._at]
        is_list_item = self._peek() == "["
        self._skip("[")
        table = self._key(())
        self._skip("]")
        if is_list_item:
            count = self._tables.get(table, 0)
            self._tables[table] = count + 1
            table = (*table, count)
            self.lines[table] = line
        return table

    def _pair(self, table: KeyPath) -> None:
        path = self._key(table)
        self._skip("=")
        self._value(path)

    def _key(self, table: KeyPath) -> KeyPath:
        """Read a dotted key and note the line of each of its parts."""
        while True:
            token, line = self._take()
            table += (_name(token),)
            self.lines.setdefault(table, line)
            if self._peek() != ".":
                return table
            self._take()
            if count := self._tables.get(table):  # it means the last table of the list
                table = (*table, count - 1)

    def _value(self, path: KeyPath) -> None:
        if self._peek() == "[":
            self._list(path)
        elif self._peek() == "{":
            self._inline_table(path)
        else:  # a scalar: one token, or several, as in 1.5 and in 2026-01-01 00:00:00
            while self._peek() not in ("", "\n", ",", "]", "}"):
                self._take()

    def _list(self, path: KeyPath) -> None:
        self._take()
        index = 0
        while True:
            self._skip("\n", ",")
            if self._peek() == "]":
                break
            self.lines[*path, index] = self._tokens[self._at][1]
            self._value((*path, index))
            index += 1
        self._take()

    def _inline_table(self, path: KeyPath) -> None:
        self._take()
        while self._peek() != "}":
            self._pair(path)
            self._skip(",")
        self._take()

    def _peek(self) -> str:
        return self._tokens[self._at][0]

    def _take(self) -> tuple[str, int]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip(self, *tokens: str) -> None:
        while self._peek() in tokens:
            self._take()


def _name(token: str) -> str:
    """The key of a bare or quoted token."""
    if token[0] not in "\"'":
        return token
    return str(tomllib.loads(f"key = {token}")["key"])

"""Checks of field values beyond their types, for Annotated: a check takes the JSON value, and
returns the field's value or raises ValueError; see `codec`.

Rules: no conversions: a bool is not a number, and an address has one valid form.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], Any]
TEXT_CHARS = 200  # in texts for display


def number(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:  # not isinstance: a bool is an int
            return value
        raise ValueError(f"not a number from {low} to {high}")

    return check


def text(pattern: str) -> Check:
    matches = re.compile(pattern).fullmatch

    def check(value: Any) -> str:
        if type(value) is str and matches(value):
            return value
        raise ValueError(f"not a text like {pattern}")

    return check


def name(max_chars: int) -> Check:
    """A text that isn't empty; whether something of that name exists is checked elsewhere."""

    def check(value: Any) -> str:
        if type(value) is str and 0 < len(value) <= max_chars:
            return value
        raise ValueError(f"not 1 to {max_chars} characters")

    return check


def printable_text(value: Any) -> str:
    if type(value) is str and len(value) <= TEXT_CHARS and value.isprintable():
        return value
    raise ValueError(f"not a printable text of at most {TEXT_CHARS} characters")


def address(value: Any) -> str:
    if type(value) is str:
        family = socket.AF_INET6 if ":" in value else socket.AF_INET
        try:
            if socket.inet_ntop(family, socket.inet_pton(family, value)) == value:
                return value
        except (OSError, ValueError):  # ValueError: a NUL, or not ASCII
            pass
    raise ValueError("not an address in canonical form")


def hexadecimal(max_bytes: int) -> Check:
    """Bytes, as two lower-case digits each."""
    return text(rf"(?:[0-9a-f]{{2}}){{0,{max_bytes}}}")

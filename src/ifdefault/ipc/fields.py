"""What a field may hold beyond its type, for Annotated: a check takes a value as JSON told it, and
returns it as the record holds it, or raises ValueError; see `codec`.

Rules: nothing is believed and nothing is mended: a bool is no number, an address has one form.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], Any]
TEXT_CHARS = 200  # of what is for people


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


def name(most: int) -> Check:
    """A text that isn't empty; whether it names anything is for another to say."""

    def check(value: Any) -> str:
        if type(value) is str and 0 < len(value) <= most:
            return value
        raise ValueError(f"not 1 to {most} characters")

    return check


def telling(value: Any) -> str:
    if type(value) is str and len(value) <= TEXT_CHARS and value.isprintable():
        return value
    raise ValueError(f"not a printable text of at most {TEXT_CHARS} characters")


def address(value: Any) -> str:
    if type(value) is str:
        family = socket.AF_INET6 if ":" in value else socket.AF_INET
        try:
            if socket.inet_ntop(family, socket.inet_pton(family, value)) == value:
                return value
        except (OSError, ValueError):  # ValueError: a NUL, or no ASCII
            pass
    raise ValueError("not an address in canonical form")


def hexadecimal(most_bytes: int) -> Check:
    """Bytes, as a text of two lower-case digits each."""
    return text(rf"(?:[0-9a-f]{{2}}){{0,{most_bytes}}}")

"""What each field of a message may hold: a check takes a value as JSON told it, and returns it as
the message holds it, or raises ValueError.

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


def word(*words: Any) -> Check:
    known = frozenset((type(each), each) for each in words)

    def check(value: Any) -> Any:
        if type(value) in (int, str, bool) and (type(value), value) in known:
            return value
        raise ValueError("none of those that there are")

    return check


def text(pattern: str) -> Check:
    matches = re.compile(pattern).fullmatch

    def check(value: Any) -> str:
        if type(value) is str and matches(value):
            return value
        raise ValueError("not such a text")

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


def list_of(check: Check, most: int) -> Check:
    def check_all(values: Any) -> tuple[Any, ...]:
        if type(values) in (list, tuple) and len(values) <= most:
            return tuple([check(value) for value in values])
        raise ValueError(f"not a list of at most {most}")

    return check_all


def row(*checks: Check) -> Check:
    """A list of just so many values, each of its own kind."""

    def check_each(values: Any) -> tuple[Any, ...]:
        if type(values) in (list, tuple) and len(values) == len(checks):
            return tuple([check(value) for check, value in zip(checks, values, strict=True)])
        raise ValueError(f"not a row of {len(checks)}")

    return check_each


def hexadecimal(most_bytes: int) -> Check:
    """Bytes, as a text of two lower-case digits each."""
    return text(rf"(?:[0-9a-f]{{2}}){{0,{most_bytes}}}")

"""Reads TSIG keys from files (`dns.tsig_key`)."""

from __future__ import annotations

from ifdefault.dns.tsig_key import MOST_BYTES, REMEDY, BadKey, LoadedKey, parse
from ifdefault.model.errors import Problem, reason


def read(path: str) -> LoadedKey:
    """The key in a file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_BYTES)
    except FileNotFoundError:
        raise BadKey(Problem(path, "no such file", REMEDY)) from None
    except OSError as error:
        why = reason(error)
        raise BadKey(Problem(path, why, "make daemon.user its owner, with mode 0400")) from None
    return parse(text, path)

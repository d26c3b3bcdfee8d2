"""The tokens of [web], which are kept in files: what is one, and how it is made."""

from __future__ import annotations

import re

LONGEST = 4096  # bytes of its file that are read
_TOKEN = re.compile(r"[!-~]{16,200}")  # printable ASCII without spaces


def fault(token: str) -> str:
    """What is wrong with it; "" if nothing is."""
    if not token:
        return "is empty"
    valid = _TOKEN.fullmatch(token)
    return "" if valid else "is not a token of 16 to 200 characters without spaces"


def remedy(path: str) -> str:
    """The command that makes one."""
    return f"run (umask 077; head -c 24 /dev/urandom | base64 > {path})"

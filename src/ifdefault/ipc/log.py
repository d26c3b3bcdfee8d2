"""The log: stderr, as the journal reads it (sd-daemon(3)) or a person.

Rules: one line a record, whatever is in it: what would break a line, or do something to a
terminal, is escaped. The journal knows the time and gets the level as "<N>"; a person gets
"HH:MM:SS level text".
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}  # syslog(3)


def set_up(*, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to stderr."""
    out = stream or sys.stderr
    lines = logging.StreamHandler(out)
    lines.setFormatter(Line(journal=is_journal(out, os.environ.get("JOURNAL_STREAM", ""))))
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a terminal that is gone is no reason to say so


def is_journal(stream: TextIO, told: str) -> bool:
    """Whether a stream is the one that the journal reads: its device and inode; systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return told == f"{status.st_dev}:{status.st_ino}"


class Line(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s", "%H:%M:%S")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = escaped(super().format(record))
        if self._journal:
            return f"<{_PRIORITY.get(record.levelname, 6)}>{text}"
        return f"{self.formatTime(record, self.datefmt)} {record.levelname.lower()} {text}"


def escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

"""Logging to stderr, in the journal's format (sd-daemon(3)) or for a terminal.

Rules: one line per record: line breaks and control characters are escaped. The journal gets the
level as "<N>" and adds the time itself; a terminal gets "HH:MM:SS level text".
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}  # syslog(3)


def set_up(*, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send all log records of this process to stderr."""
    out = stream or sys.stderr
    lines = logging.StreamHandler(out)
    lines.setFormatter(Line(journal=is_journal(out, os.environ.get("JOURNAL_STREAM", ""))))
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    escaped("\n")  # loads the codec: without privileges, its module may not be readable
    logging.raiseExceptions = False  # no tracebacks when the terminal was closed


def is_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether a stream is connected to the journal, by $JOURNAL_STREAM; systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


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

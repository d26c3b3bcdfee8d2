"""Logging to stderr, in the journal's format (sd-daemon(3)) or for a terminal.

Rules: one line per record: line breaks and control characters are escaped. The journal gets the
level as "<N>" and adds the time itself; a terminal gets "HH:MM:SS level text". A text that is
logged again and again is counted, after the first `OFTEN` times within `WITHIN_S`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TextIO, TypeVar

from ifdefault.model.errors import internal
from ifdefault.model.text import escaped

if TYPE_CHECKING:
    from ifdefault.model.config import Severity

OFTEN, WITHIN_S = 10, 60.0
_MOST = 256  # texts, and places of exceptions, that are counted
_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}  # syslog(3)
LEVELS: dict[Severity, int] = {  # of events
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_logger = logging.getLogger("ifdefault")
H = TypeVar("H", bound=Hashable)
# exceptions, by type, where they were raised, and whether they end the process
_counts: Counter[tuple[str, str, bool]] = Counter()


def set_up(*, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send all log records of this process to stderr."""
    out = stream or sys.stderr
    lines = _Counting(out)
    lines.setFormatter(Line(journal=is_journal(out, os.environ.get("JOURNAL_STREAM", ""))))
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    escaped("\n")  # loads the codec: without privileges, its module may not be readable
    logging.raiseExceptions = False  # no tracebacks when the terminal was closed


def exception(error: BaseException, what: str, *, fatal: bool = False) -> None:
    """Log an exception that is a fault of ours: at first with its traceback; from the same place
    again, at the 10th, 100th … time. One that ends the process (`fatal`) is always logged."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    key = type(error).__name__, place, fatal
    if fatal or key in _counts or len(_counts) < _MOST:
        _counts[key] += 1
        count = _counts[key]
        if count == 1:
            _logger.error("%s: %s", what, internal(error), exc_info=error)
        elif count == 10 ** (len(str(count)) - 1):
            _logger.error("%s: %s, %d times so far", what, internal(error), count)


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


@dataclass(slots=True)
class _Repeated:
    since_s: float
    count: int = 0


class Repeats(Generic[H]):
    """What is said again and again: `often` times within `WITHIN_S`, and then how often more."""

    def __init__(self, often: int = OFTEN) -> None:
        self._often = often
        self._said: dict[H, _Repeated] = {}  # the oldest first

    def passes(self, what: H, now: float) -> bool:
        """Whether to say it once more."""
        repeated = self._said.setdefault(what, _Repeated(now))
        repeated.count += 1
        return repeated.count <= self._often

    def over(self, now: float) -> Iterator[tuple[H, int]]:
        """What was not said within a time that is over, and how often. To be called first."""
        for what, repeated in list(self._said.items()):
            if repeated.since_s > now - WITHIN_S and len(self._said) < _MOST:
                return
            del self._said[what]
            if repeated.count > self._often:
                yield what, repeated.count - self._often


class _Counting(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._repeats: Repeats[tuple[int, str]] = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        for (level, text), more in self._repeats.over(now):
            text = repeated(text, more)
            super().emit(logging.LogRecord(record.name, level, "", 0, text, None, None))
        if self._repeats.passes((record.levelno, record.getMessage()), now):
            super().emit(record)


def repeated(text: str, more: int) -> str:
    times = "time" if more == 1 else "times"
    return f"{text} ({more} more {times} within {WITHIN_S:g} s)"

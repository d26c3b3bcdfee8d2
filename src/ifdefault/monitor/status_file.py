"""What the monitor says of itself: a small file, which `status`, page and metrics read.

Rules: it is in the run directory, where a full disk doesn't prevent it and no reboot leaves it. It
is written whenever something changes, and each minute; replaced, so that no reader sees half of it.
One that is older than `STALE_S` is of a monitor that was killed, or hangs. Its readers, some of
them root, trust the monitor's user with nothing: they don't wait for a pipe in its place.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ifdefault import __version__
from ifdefault.ipc import codec
from ifdefault.ipc.regular_file import read_regular
from ifdefault.monitor.notify.report import NotifierReport
from ifdefault.monitor.replace_file import replace_file

FOLDER, FILE = "monitor", "status.json"  # in the run directory
STALE_S = 180.0
_LONGEST = 1 << 20
_log = logging.getLogger("ifdefault")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that the monitor can't do. `what`: history, config, textfile, "notify NAME"."""

    what: str
    text: str
    since: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class MonitorStatus:
    pid: int
    at: float  # when this was written
    version: str
    troubles: tuple[Trouble, ...] = ()
    notifiers: tuple[NotifierReport, ...] = ()


def status_dir(run_dir: Path) -> Path:
    return run_dir / FOLDER


class StatusFile:
    """Writes the file, and logs what changes."""

    def __init__(self, run_dir: Path) -> None:
        self._path = status_dir(run_dir) / FILE
        self._troubles: dict[str, Trouble] = {}
        self.notifiers: tuple[NotifierReport, ...] = ()

    def say(self, what: str, text: str) -> None:
        """What trouble a part of the monitor has now, "" if it has none."""
        known = self._troubles.get(what)
        if (known.text if known else "") == text:
            return
        if text:
            since = known.since if known else time.time()
            self._troubles[what] = Trouble(what, text, since)
            _log.warning("%s: %s", what, text)
        else:
            del self._troubles[what]
            _log.info("%s: works again", what)
        self.write()

    def write(self) -> None:
        troubles = tuple(sorted(self._troubles.values(), key=lambda trouble: trouble.what))
        status = MonitorStatus(os.getpid(), time.time(), __version__, troubles, self.notifiers)
        with suppress(OSError):
            replace_file(self._path, codec.write(codec.to_json(status)) + b"\n")

    def remove(self) -> None:
        """At the end: it doesn't run any more."""
        with suppress(OSError):
            self._path.unlink()


def read_status(run_dir: Path, now: float) -> MonitorStatus | None:
    """What the monitor says; None if it doesn't run, or can't be understood."""
    try:
        value = codec.read(read_regular(status_dir(run_dir) / FILE, _LONGEST))
        status = codec.from_json(MonitorStatus, value)
    except (OSError, codec.DecodeError):
        return None
    return status if abs(now - status.at) < STALE_S else None

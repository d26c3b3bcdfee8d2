"""How each notifier fares, in a file that every user may read: for `ifdefault notify`, `status` and
the page.

Rules: no secret is in it: of a URL only its host. The file is replaced as a whole. What it says is
the state when it was written last; the monitor may have ended since.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ifdefault.ipc import codec
from ifdefault.model.config import NotifyConfig

REPORT = "notify.json"
_LONGEST = 1024 * 1024
Means = Literal["mail", "webhook", "ntfy", "apprise"]
MEANS: tuple[Means, ...] = ("mail", "webhook", "ntfy", "apprise")


@dataclass(frozen=True, slots=True)
class NotifierReport:
    """Times are seconds since the epoch, 0 for never. `waiting`: events that have yet to be sent;
    `held_until`: the end of the quiet time that they wait for; `sending_since`: an attempt runs;
    `retry_at`: the next one after a failure; `said`: what the server answered last."""

    name: str
    means: Means
    to: str
    waiting: int = 0
    omitted: int = 0  # events that couldn't be kept
    sent_at: float = 0.0
    said: str = ""
    held_until: float = 0.0
    sending_since: float = 0.0
    failing_since: float = 0.0
    failures: int = 0
    error: str = ""
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class NotifyReport:
    pid: int  # of the monitor
    notifiers: tuple[NotifierReport, ...] = ()
    unsaved: str = ""  # why the outbox can't be saved


_decode: Callable[[object], NotifyReport] = codec.decoder(NotifyReport)


def means_of(config: NotifyConfig) -> Means:
    return next(m for m in MEANS if getattr(config, m) or getattr(config, f"{m}_file", ""))


def recipient(config: NotifyConfig) -> str:
    """To whom it sends, without secrets."""
    means = means_of(config)
    if means in ("mail", "apprise"):
        return str(getattr(config, means))
    if url := getattr(config, means):
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}"
    return f"the URL in {getattr(config, f'{means}_file')}"


def write(directory: Path, report: NotifyReport) -> None:
    """Raises OSError."""
    fresh = directory / f".{REPORT}.new"
    with suppress(FileNotFoundError):
        fresh.unlink()
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        file.write(codec.write(codec.to_json(report)) + b"\n")
        os.fchmod(fd, 0o644)  # whatever the umask
    fresh.replace(directory / REPORT)


def read(directory: Path) -> NotifyReport | None:
    """The report of the monitor that ran last; None if there is none that can be read."""
    try:
        fd = os.open(directory / REPORT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return _decode(codec.read(file.read(_LONGEST)))
    except (OSError, ValueError):
        return None

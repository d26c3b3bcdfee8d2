"""How a notifier fares, as `ifdefault notify`, `status` and the page show it.

Rules: it is in the monitor's status file, which every user may read, so that no secret is in it: of
a URL only its host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ifdefault.model.config import NotifyConfig

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

"""What we tell systemd of ourselves: sd_notify(3), without its library.

Rules: without NOTIFY_SOCKET nothing is told, and nothing that is told can fail or wait.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Tells the manager of this service, if there is one.

    `watchdog_s`: how long it waits for `alive` before it restarts us; 0 if it doesn't.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        place = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL that an abstract address begins with; unix(7)
        self._address = "\0" + place[1:] if place.startswith("@") else place
        self.watchdog_s = _watchdog_s(environment) if place[:1] in ("/", "@") else 0.0
        self._told_s = float("-inf")
        self._socket: socket.socket | None = None
        if place[:1] in ("/", "@"):
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_UNIX, kind)

    def ready(self, status: str = "") -> None:
        """We serve (again, after `reloading`); `status` is a line for `systemctl status`."""
        self._tell("READY=1", *_status(status))

    def reloading(self) -> None:
        # systemd compares the time with its own: READY=1 of an earlier reload mustn't count
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self, now: float) -> None:
        """Say that we live, if it is time to: four times as often as must be."""
        if self.watchdog_s and now - self._told_s >= self.watchdog_s / 4:
            self._told_s = now
            self._tell("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None and lines:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """sd_watchdog_enabled(3): the time counts only if it is meant for this process."""
    period, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(period) / 1e6

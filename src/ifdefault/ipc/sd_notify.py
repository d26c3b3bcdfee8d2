"""Notifies systemd of the daemon's state: sd_notify(3), without its library.

Rules: without NOTIFY_SOCKET nothing is sent. Sending never blocks, and errors are ignored.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from ifdefault.model.text import escaped


class Notifier:
    """Notifies the service manager, if there is one. `watchdog_s`: its watchdog timeout, 0 if it
    has none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" is the NUL that an abstract address begins with; unix(7)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment) if address[:1] in ("/", "@") else 0.0
        self._alive_s = float("-inf")  # when it was sent last
        self._socket: socket.socket | None = None
        if address[:1] in ("/", "@"):
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_UNIX, kind)

    def ready(self, status: str = "") -> None:
        """The daemon is ready, or has reloaded; `status` is a line for `systemctl status`."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        # systemd compares the time with its own, to ignore READY=1 of an earlier reload
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self, now: float) -> None:
        """Feed the watchdog, if it is time to: four times as often as needed."""
        if self.watchdog_s and now - self._alive_s >= self.watchdog_s / 4:
            self._alive_s = now
            self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None and lines:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={escaped(' '.join(text.split()))}",) if text else ()


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """sd_watchdog_enabled(3): the timeout applies only if it is meant for this process."""
    period, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not period.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(period) / 1e6

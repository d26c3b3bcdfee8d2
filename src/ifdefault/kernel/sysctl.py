"""Sysctls of this network namespace, by their path below /proc/sys ("net/ipv4/ip_forward").

Rules: names are paths, since interface names may contain dots. A missing sysctl reads as None.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    try:
        return " ".join((_ROOT / name).read_text("utf-8", "replace").split())
    except OSError:
        return None


def read_only() -> bool:
    """Whether sysctls can't be written though we are root, as in containers. Any one will do: they
    are mounted read-only, or a security module forbids it."""
    try:
        os.close(os.open(_ROOT / "net/ipv4/fwmark_reflect", os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EROFS or not os.geteuid()
    return False


def write(name: str, value: str) -> None:
    (_ROOT / name).write_text(value)


class Watched:
    """Sysctls and their expected values; the files are kept open, so that checks are cheap."""

    def __init__(self, wanted: Iterable[tuple[str, str]]) -> None:
        self.wanted = tuple(wanted)
        self._open: list[tuple[int, bytes]] = []
        for name, value in self.wanted:
            with suppress(OSError):  # its interface was deleted
                fd = os.open(_ROOT / name, os.O_RDONLY | os.O_CLOEXEC)
                self._open.append((fd, b"\t".join(value.encode().split())))

    def differ(self) -> bool:
        """Whether one has another value, or no longer exists."""
        try:
            return any(os.pread(fd, 128, 0).rstrip() != value for fd, value in self._open)
        except OSError:
            return True

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop()[0])

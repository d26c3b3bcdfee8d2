"""Reads files that another user may have replaced: a pipe or a device keeps no reader waiting."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes:
    """At most so many bytes of a file; OSError if it is none, or can't be read."""
    require_regular(path)  # opening a device may do something
    with open(
        os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb"
    ) as file:
        _require(os.fstat(file.fileno()), path)  # it may have been replaced meanwhile
        return file.read(most)


def require_regular(path: Path) -> None:
    """OSError if it isn't a file, FileNotFoundError if there is none."""
    _require(path.stat(), path)


def _require(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))

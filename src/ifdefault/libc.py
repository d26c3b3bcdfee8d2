"""The C library, for system calls that Python doesn't wrap."""

from __future__ import annotations

import ctypes
import os

SELECT_MAX = 1024  # FD_SETSIZE: select(2) takes only lower descriptors
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str = "") -> int:
    """The return value of a call; OSError by errno, prefixed with `what`, if the call failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}" if what else os.strerror(code))
    return result

"""The state of the system's clock: adjtimex(2).

Rules: reads, never sets.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from ifdefault.libc import checked, libc

_STA_UNSYNC, _TIME_ERROR = 0x40, 5  # linux/timex.h


class _Timex(ctypes.Structure):
    """struct timex; what follows `tick` isn't used."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


@dataclass(frozen=True, slots=True)
class Clock:
    """`error_s`: by how much it may be wrong, as what synchronises it estimates."""

    synchronised: bool
    error_s: float


def read_clock() -> Clock:
    """Raises OSError."""
    timex = _Timex()
    state = checked(libc.adjtimex(ctypes.byref(timex)), "adjtimex")
    synchronised = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    return Clock(synchronised, timex.maxerror / 1e6)

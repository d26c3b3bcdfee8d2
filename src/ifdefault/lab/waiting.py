"""Waiting for a condition instead of for a time.

Rules: a slow machine waits longer: every timeout is multiplied by $IFDEFAULT_LAB_PATIENCE.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 60.0  # what comes late isn't absent: other work may have the machine

_PATIENCE = float(os.environ.get("IFDEFAULT_LAB_PATIENCE", "1"))


def eventually(
    condition: Callable[[], T],
    timeout_s: float = PATIENCE_S,
    *,
    what: str = "",
    poll_s: float = 0.02,
) -> T:
    """Return the first true result of `condition`; a TimeoutError tells its last one."""
    timeout_s *= _PATIENCE
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise TimeoutError(f"{name}: still {result!r} after {timeout_s:g} s")
        time.sleep(poll_s)
    return result

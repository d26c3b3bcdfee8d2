"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 60.0  # long, because other work may occupy the machine


def eventually(
    condition: Callable[[], T],
    timeout_s: float = PATIENCE_S,
    *,
    what: str = "",
    poll_s: float = 0.02,
) -> T:
    """Return the first true result of `condition`; a TimeoutError contains its last one."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise TimeoutError(f"{name}: still {result!r} after {timeout_s:g} s")
        time.sleep(poll_s)
    return result

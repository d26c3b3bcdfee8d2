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
    """Return the first true result of `condition`; a TimeoutError contains its last one. To ask
    takes at most half of the time: what is waited for needs the processor, too."""
    begin_s = time.monotonic()
    deadline = begin_s + timeout_s
    while not (result := condition()):
        end_s = time.monotonic()
        if end_s > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise TimeoutError(f"{name}: still {result!r} after {timeout_s:g} s")
        time.sleep(max(poll_s, min(end_s - begin_s, 0.25)))
        begin_s = time.monotonic()
    return result

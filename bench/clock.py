"""Timing a call, and progress messages."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def log(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def time_ms(func: Callable[[], object]) -> float:
    start_ns = time.perf_counter_ns()
    func()
    return (time.perf_counter_ns() - start_ns) / 1e6


def times_ms(func: Callable[[], object], count: int, *, warm_up: int = 1) -> list[float]:
    """How long each of `count` calls takes, after some that don't count."""
    for _ in range(warm_up):
        func()
    return [time_ms(func) for _ in range(count)]

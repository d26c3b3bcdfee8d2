"""What a plan would do, or has done, as people are told of it."""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.errors import Problem

LONGEST_CONFIRM_S = 86400  # so long changes may wait for their confirmation


@dataclass(frozen=True, slots=True)
class Changes:
    """The operations that bring the kernel to what is desired, and what stands in their way."""

    operations: tuple[str, ...]
    pending: dict[str, str]  # uplinks, and why
    problems: tuple[Problem, ...]
    tables: dict[str, str]  # the nft tables that are desired, as text
    ready: int  # of so many uplinks
    uplinks: int

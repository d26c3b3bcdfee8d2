"""A plan in the form that is shown to users."""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.errors import Problem

LONGEST_CONFIRM_S = 86400  # upper limit of `apply --confirm`


@dataclass(frozen=True, slots=True)
class Changes:
    """The operations that lead to the desired state, and the problems found. `dns`: what a new
    config changes in the DNS."""

    operations: tuple[str, ...]
    pending: dict[str, str]  # uplink to the reason
    problems: tuple[Problem, ...]
    tables: dict[str, str]  # the text of the desired nft tables
    ready: int  # how many of the uplinks are usable
    uplinks: int
    dns: tuple[str, ...] = ()


def undone_in(seconds: float) -> str:
    """What happens to an unconfirmed apply."""
    return f"undone in {seconds:.0f} s unless you run: ifdefault confirm"

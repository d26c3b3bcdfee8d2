"""The connections of an uplink that return to a better one.

Rules: as in `model`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.config import Family


@dataclass(frozen=True, slots=True)
class Returning:
    """Outgoing connections of one family from `addresses`, or with `mark`, that would take one of
    `tables` if they were opened now: those of better uplinks, whose marks are `marks`.

    `balanced`: connections get a mark to be balanced; otherwise those that have one were given it
    by a control group, or by their program. `groups`: control groups, and the marks that their
    connections get now. `own`: all addresses of this host."""

    family: Family
    addresses: tuple[str, ...]
    mark: int
    mask: int
    tables: tuple[int, ...]
    marks: tuple[int, ...]
    balanced: bool = False
    groups: tuple[tuple[str, int], ...] = ()
    own: tuple[str, ...] = ()

"""The transition of a path that an event tells of.

Rules: the inverse of `model.health.Transition.__str__`, which a test holds it to. What isn't one is
None.
"""

from __future__ import annotations

import re
from typing import cast, get_args

from ifdefault.model.config import Family
from ifdefault.model.health import PathState
from ifdefault.model.report import Event
from ifdefault.monitor.history.records import Path

_STATES = "|".join(get_args(PathState))
_TEXT = re.compile(rf"(\S+) IPv([46]): ({_STATES}) -> ({_STATES}) \((.*)\)")


def transition_of(event: Event) -> tuple[Path, PathState, str] | None:
    """The path, the state that it entered, and why."""
    match = _TEXT.fullmatch(event.text) if event.kind == "path" else None
    if match is None:
        return None
    uplink, family, _, state, cause = match.groups()
    return Path(uplink, cast(Family, int(family))), cast(PathState, state), cause


def state_before(event: Event) -> PathState | None:
    """The state that the path left."""
    match = _TEXT.fullmatch(event.text) if event.kind == "path" else None
    return None if match is None else cast(PathState, match[3])

"""The states of a path, all transitions between them, and what is kept across restarts."""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.health import PathState

TRANSITIONS: dict[PathState, dict[PathState, str]] = {
    "unproven": {
        "up": "a target beyond the gateway answered, or traffic flows",
        "down": "no carrier; gateway unreachable, if no target is configured",
    },
    "up": {
        "degraded": "loss or delay exceeds the limits; traffic flows, though no target answers",
        "down": "rounds lost; no carrier; gateway unreachable, if no target is configured",
    },
    "degraded": {
        "up": "loss and delay well below the limits, and targets answer",
        "down": "as from up",
    },
    "down": {
        "recovering": "an answer, or traffic flows",
        "unproven": "the carrier is back, and no target ever answered",
    },
    "recovering": {
        "up": "at least half of the rounds were answered during the hold",
        "degraded": "traffic flows, though no target answers",
        "down": "as from up",
    },
}


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of a path that is kept across restarts. `losses`: the state of the loss model;
    `seen`: the targets that have answered, with their round trip in seconds; `falls_s`: when the
    path went down recently."""

    state: PathState = "unproven"
    since_s: float = 0.0
    cause: str = ""
    losses: tuple[float, ...] = ()
    seen: tuple[tuple[str, float], ...] = ()
    falls_s: tuple[float, ...] = ()

"""The states of a path, every step that there is between them, and what outlives a process."""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.model.health import PathState

TRANSITIONS: dict[PathState, dict[PathState, str]] = {
    "unproven": {
        "up": "something beyond the gateway answered, or traffic flows",
        "down": "no carrier; no gateway, where that is all there is",
    },
    "up": {
        "degraded": "loss or delay beyond the limits",
        "down": "rounds lost; no carrier; no gateway, where that is all there is",
    },
    "degraded": {
        "up": "loss and delay well within the limits",
        "down": "as from up",
    },
    "down": {
        "recovering": "an answer, or traffic flows",
        "unproven": "the carrier is back, and nothing ever answered",
    },
    "recovering": {
        "up": "half of the rounds or more were answered while it was held",
        "down": "as from up",
    },
}


@dataclass(frozen=True, slots=True)
class Memory:
    """What a path takes along into the next process: numbers, strings and tuples only. `losses`:
    what the loss model learned; `seen`: the targets that answered, and their round trip;
    `falls_s`: when it went down lately."""

    state: PathState = "unproven"
    since_s: float = 0.0
    cause: str = ""
    losses: tuple[float, ...] = ()
    seen: tuple[tuple[str, float], ...] = ()
    falls_s: tuple[float, ...] = ()

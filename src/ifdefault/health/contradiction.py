"""Connections that progress while probes are silent: a path that works, whatever probes say.

Rules: progress since the last answered probe contradicts the silence if that has lasted for long,
or if the path was called down. Then the silence brings the path down only when the connections
have stalled for as long. A single answer ends the contradiction. Outsiders off the path can't forge
progress: they don't know the sequence numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ifdefault.health.failure_detector import LONGEST_ROUNDS, LONGEST_S

SERVED = "probes unanswered, but clients are served"


@dataclass(slots=True)
class Contradiction:
    """`active`: connections progress in spite of the silence; `progress_s`: when they last did;
    `silent`: rounds lost since the last answer."""

    active: bool = False
    progress_s: float = -math.inf
    silent: int = 0

    @property
    def deadline_s(self) -> float:
        """Until when silence doesn't bring the path down."""
        return self.progress_s + LONGEST_S if self.active else -math.inf

    def record_progress(self, at_s: float, answered_s: float, *, down: bool) -> None:
        """Connections progressed at `at_s`. `answered_s`: when the latest probe was sent that was
        answered; `down`: whether the path had been called down before."""
        self.progress_s = at_s
        silent = self.silent >= LONGEST_ROUNDS and at_s > answered_s + LONGEST_S
        self.active = self.active or down or silent

    def end(self) -> None:
        """A probe was answered, or the path is down."""
        self.active, self.silent = False, 0

"""One target of a path: its answers and losses, and the timeout of its probes.

Rules: round trips are per target, since a ping, a TCP handshake and an HTTPS request differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ifdefault.model.health import GATEWAY, TargetHealth

SPACING_S = 0.2  # between probes of one target: gateways and public resolvers limit the rate
# for the gateway if it is the only target: IPv4 and IPv6 share its rate limit
ALONE_SPACING_S = 0.5
UNKNOWN_TIMEOUT_S = 1.0
LEAST_TIMEOUT_S = 0.04
MOST_TIMEOUT_S = 1.0
MOST_SLOW_TIMEOUT_S = 3.0  # where all recent answers were as slow
SLOW_MARGIN = 1.2  # in units of the slow round trip
MARGIN_S = 0.02  # delay that a busy machine may add to any round trip

ASIDE_LOSSES = 4  # in a row, while other targets answer
ASIDE_CHANCE = 1e-4  # probability of such losses by the present loss of the path


@dataclass(slots=True, eq=False)
class ProbeTarget:
    """The record of a target. `last_s`: when it was probed last; `lost_s`: when the last of the
    `losses_in_row` was sent; `answered_s`: when the latest probe that it answered was sent."""

    index: int
    probe: str
    proven: bool = False  # it has answered, so its silence counts
    rtt_s: float = 0.0  # 0: unknown
    var_s: float = 0.0
    aside: bool = False  # set aside: silent while others answer, so its silence doesn't count
    wrong: bool = False  # its last answer was wrong
    answered: int = 0
    lost: int = 0
    losses_in_row: int = 0
    last_s: float = -math.inf
    lost_s: float = -math.inf
    answered_s: float = -math.inf
    spacing_s: float = SPACING_S
    due_s: float = -math.inf  # if set aside, or not proven: when to probe it again

    def __post_init__(self) -> None:
        self.var_s = self.rtt_s / 2  # RFC 6298, 2.2

    @property
    def good(self) -> bool:
        return self.proven and not self.aside

    def timeout_s(self, excess_s: float, floor_s: float) -> float:
        """How long to wait for an answer. `excess_s`: by how much recent answers were late;
        `floor_s`: the fastest of them."""
        slow_s = min(SLOW_MARGIN * floor_s, MOST_SLOW_TIMEOUT_S)
        if not self.rtt_s:
            return max(UNKNOWN_TIMEOUT_S, slow_s)
        least = self.rtt_s + max(4 * self.var_s, excess_s, MARGIN_S)
        return max(min(max(least, LEAST_TIMEOUT_S), MOST_TIMEOUT_S), slow_s)

    def record_answer(self, sent_s: float) -> None:
        """The probe sent at `sent_s` was answered."""
        self.answered += 1
        self.losses_in_row = 0
        self.proven, self.aside, self.wrong = True, False, False
        if sent_s > self.answered_s:
            self.answered_s = sent_s

    def record_rtt(self, rtt_s: float) -> float:
        """An answer took `rtt_s`; return by how much that exceeds the mean, in seconds."""
        if not self.rtt_s:
            self.rtt_s, self.var_s = rtt_s, rtt_s / 2
            return 0.0
        difference_s = rtt_s - self.rtt_s
        self.var_s += (abs(difference_s) - self.var_s) / 4
        self.rtt_s += difference_s / 8
        return difference_s

    def record_loss(self, sent_s: float, clear_s: float) -> None:
        """The probe sent at `sent_s` was lost. `clear_s`: when the latest probe was sent that any
        target answered; of the losses between two answers of other targets only one counts."""
        self.lost += 1
        if self.losses_in_row == 0 or clear_s > self.lost_s:
            self.losses_in_row += 1
        self.lost_s = max(self.lost_s, sent_s)

    def is_silent_alone(self, loss_ratio: float) -> bool:
        """Whether it is silent while others answer, which `loss_ratio` doesn't explain."""
        return self.losses_in_row >= ASIDE_LOSSES and loss_ratio**self.losses_in_row < ASIDE_CHANCE

    def health(self, now: float) -> TargetHealth:
        note = ""
        if self.wrong:
            note = "answers, but not as expected"
        elif not self.proven:
            note = "never answered" if self.lost else ""
        elif self.aside or self.losses_in_row >= ASIDE_LOSSES:
            silent_s = "" if self.answered_s == -math.inf else f" for {now - self.answered_s:.0f} s"
            also = "" if self.index == GATEWAY else ", set aside" if self.aside else ""
            note = f"silent{silent_s}{also}"
        return TargetHealth(self.probe, self.answered, self.lost, self.rtt_s * 1000, note)

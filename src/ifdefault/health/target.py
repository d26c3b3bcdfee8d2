"""One target of a path: what is known of it, and how long to wait for its answer.

Rules: times are per target, since a ping, a TCP handshake and an HTTPS request take what they take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ifdefault.model.health import GATEWAY, TargetHealth

SPACING_S = 0.2  # between two probes to one target: gateways and public resolvers police more
# the gateway where it is all there is: IPv4 and IPv6 share what it allows
ALONE_SPACING_S = 0.5
UNKNOWN_TIMEOUT_S = 1.0
LEAST_TIMEOUT_S = 0.04
MOST_TIMEOUT_S = 1.0
MARGIN_S = 0.02  # what a busy machine may add to any round trip

ASIDE_LOSSES = 4  # in a row, with answers of others in between
ASIDE_CHANCE = 1e-4  # that a line with its present loss does the same to a target that lives


@dataclass(slots=True, eq=False)
class ProbeTarget:
    """A target's record. `last_s`: when it was asked last; `lost_s`: when the last of its losses
    in a `row` was sent; `heard_s`: when the last probe that it answered was sent."""

    index: int
    probe: str
    proven: bool = False  # it answered once, so that its silence means something
    rtt_s: float = 0.0  # 0 is unknown
    var_s: float = 0.0
    aside: bool = False  # silent while others answer, so that its silence means nothing
    wrong: bool = False  # its last answer wasn't the one that was asked for
    answered: int = 0
    lost: int = 0
    row: int = 0
    last_s: float = -math.inf
    lost_s: float = -math.inf
    heard_s: float = -math.inf
    spacing_s: float = SPACING_S
    due_s: float = -math.inf  # aside, or not proven yet: when it is asked again

    def __post_init__(self) -> None:
        self.var_s = self.rtt_s / 2  # RFC 6298, 2.2

    @property
    def good(self) -> bool:
        return self.proven and not self.aside

    def timeout_s(self, excess_s: float) -> float:
        """How long to wait; `excess_s` is by how much answers were late lately."""
        if not self.rtt_s:
            return UNKNOWN_TIMEOUT_S
        least = self.rtt_s + max(4 * self.var_s, excess_s, MARGIN_S)
        return min(max(least, LEAST_TIMEOUT_S), MOST_TIMEOUT_S)

    def hear(self, sent_s: float) -> None:
        """Note an answer."""
        self.answered += 1
        self.row = 0
        self.proven, self.aside, self.wrong = True, False, False
        if sent_s > self.heard_s:
            self.heard_s = sent_s

    def time(self, rtt_s: float) -> float:
        """Note how long an answer took; return by how much it came later than usual."""
        if not self.rtt_s:
            self.rtt_s, self.var_s = rtt_s, rtt_s / 2
            return 0.0
        off_s = rtt_s - self.rtt_s
        self.var_s += (abs(off_s) - self.var_s) / 4
        self.rtt_s += off_s / 8
        return off_s

    def miss(self, sent_s: float, heard_s: float) -> None:
        """Note a loss. `heard_s`: when the latest was sent that anyone answered; losses count for
        the `row` only once between two answers of others."""
        self.lost += 1
        if self.row == 0 or heard_s > self.lost_s:
            self.row += 1
        self.lost_s = max(self.lost_s, sent_s)

    def is_odd(self, loss_ratio: float) -> bool:
        """Whether it is silent while others answer, on a line that normally loses so much."""
        return self.row >= ASIDE_LOSSES and loss_ratio**self.row < ASIDE_CHANCE

    def health(self, now: float) -> TargetHealth:
        note = ""
        if self.wrong:
            note = "answers, but not as expected"
        elif not self.proven:
            note = "never answered" if self.lost else ""
        elif self.aside or self.row >= ASIDE_LOSSES:
            silent_s = "" if self.heard_s == -math.inf else f" for {now - self.heard_s:.0f} s"
            also = "" if self.index == GATEWAY else ", set aside" if self.aside else ""
            note = f"silent{silent_s}{also}"
        return TargetHealth(self.probe, self.answered, self.lost, self.rtt_s * 1000, note)

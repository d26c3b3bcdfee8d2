"""How many answers a network of clients gets that hasn't shown that its addresses are its own.

Rules: a network is a /24 or a /56, counted a second at a time. Beyond the limit every other answer
is left out, and every other only says to come over TCP, so that a real client gets through while
whoever forges addresses hits their owners with less than it sends. Memory is bounded.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

LimiterAction = Literal["answer", "truncate", "drop"]
MOST_CLIENTS = 65_536  # counted at once; if they are more, all are counted anew
_PERIOD_S = 1.0


class Limiter:
    """`rate_limit` answers a second; 0 is any number."""

    __slots__ = ("_by_client", "_by_network", "_end_s", "rate_limit")

    def __init__(self, rate_limit: int) -> None:
        self.rate_limit = rate_limit
        self._by_client: dict[str, list[int]] = {}  # of a network the same list: what is left
        self._by_network: dict[str | bytes, list[int]] = {}
        self._end_s = 0.0

    def decide(self, client: str, now: float) -> LimiterAction:
        if not self.rate_limit:
            return "answer"
        if not self._end_s - _PERIOD_S <= now < self._end_s:
            self._begin(now)
        left = self._by_client.get(client) or self._meet(client)
        left[0] -= 1
        if left[0] >= 0:
            return "answer"
        return "truncate" if left[0] & 1 else "drop"

    def _begin(self, now: float) -> None:
        self._by_client.clear()
        self._by_network.clear()
        self._end_s = now + _PERIOD_S

    def _meet(self, client: str) -> list[int]:
        if len(self._by_client) >= MOST_CLIENTS:
            self._by_client.clear()
            self._by_network.clear()
        left = self._by_network.setdefault(network(client), [self.rate_limit])
        self._by_client[client] = left
        return left


def network(client: str) -> str | bytes:
    """What a client's address shares with its neighbours."""
    if ":" not in client:
        return client.rpartition(".")[0]
    try:
        return ip_address(client).packed[:7]
    except ValueError:  # we can't tell who it is, so it is a network of its own
        return client

"""Response rate limiting for clients without a valid cookie.

Rules: a network is a /24 or a /56; responses are counted per second. Beyond the limit they are
truncated, and no longer than their query, so that resolvers use TCP, and forged queries cause no
more traffic than they are. None is dropped: resolvers stop querying a server that doesn't respond,
some for a minute and more. Memory is bounded.
"""

from __future__ import annotations

from ipaddress import ip_address

CLIENTS_MAX = 65_536  # counted at the same time; beyond that, all counts are reset
_PERIOD_S = 1.0


class Limiter:
    """`rate_limit`: responses per second; 0: unlimited."""

    __slots__ = ("_by_client", "_by_network", "_end_s", "rate_limit")

    def __init__(self, rate_limit: int) -> None:
        self.rate_limit = rate_limit
        # the remaining responses; clients of a network share the list
        self._by_client: dict[str, list[int]] = {}
        self._by_network: dict[str | bytes, list[int]] = {}
        self._end_s = 0.0

    def permits(self, client: str, now: float) -> bool:
        """Whether the client gets another response in full."""
        if not self.rate_limit:
            return True
        if not self._end_s - _PERIOD_S <= now < self._end_s:
            self._start_period(now)
        remaining = self._by_client.get(client) or self._register(client)
        remaining[0] -= 1
        return remaining[0] >= 0

    def _start_period(self, now: float) -> None:
        self._by_client.clear()
        self._by_network.clear()
        self._end_s = now + _PERIOD_S

    def _register(self, client: str) -> list[int]:
        if len(self._by_client) >= CLIENTS_MAX:
            self._by_client.clear()
            self._by_network.clear()
        remaining = self._by_network.setdefault(network(client), [self.rate_limit])
        self._by_client[client] = remaining
        return remaining


def network(client: str) -> str | bytes:
    """The network of a client's address."""
    if ":" not in client:
        return client.rpartition(".")[0]
    try:
        return ip_address(client).packed[:7]
    except ValueError:  # not an address: a network of its own
        return client

"""Response rate limiting."""

from __future__ import annotations

import pytest

from ifdefault.dns.limiter import CLIENTS_MAX, Limiter, network


def test_a_network_gets_so_many_a_second() -> None:
    limiter = Limiter(10)
    for second in range(3):
        permitted = [limiter.permits(f"192.0.2.{n}", second + n / 100) for n in range(30)]
        assert permitted == [True] * 10 + [False] * 20


def test_another_network_is_not_concerned() -> None:
    limiter = Limiter(1)
    clients = ("192.0.2.1", "192.0.3.1", "2001:db8::1", "2001:db8:0:100::1")
    assert all(limiter.permits(client, 0.0) for client in clients)
    assert not any(limiter.permits(client, 0.0) for client in clients)
    assert not limiter.permits("2001:db8:0:ff::9", 0.0)


def test_no_limit() -> None:
    limiter = Limiter(0)
    assert all(limiter.permits("192.0.2.1", 0.0) for _ in range(1000))


def test_time_may_go_back() -> None:
    limiter = Limiter(1)
    for now in (100.0, 5.0, 50.0, 0.0):
        assert limiter.permits("192.0.2.1", now)
        assert not limiter.permits("192.0.2.1", now)


@pytest.mark.parametrize(
    ("client", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.255", True),
        ("192.0.2.1", "192.0.20.1", False),
        ("2001:db8:0:ff::1", "2001:db8::1", True),
        ("2001:db8:0:100::1", "2001:db8::1", False),
        ("fe80::1%wan0", "fe80::2%wan0", True),
        (":", ":", True),
    ],
)
def test_networks(client: str, other: str, same: bool) -> None:
    assert (network(client) == network(other)) == same


def test_memory_is_bounded() -> None:
    limiter = Limiter(1)
    for n in range(CLIENTS_MAX + 5000):
        limiter.permits(f"{n >> 16}.{n >> 8 & 255}.{n & 255}.1", 0.0)
        assert len(limiter._by_client) <= CLIENTS_MAX
    assert len(limiter._by_network) <= CLIENTS_MAX

"""What the benches of the DNS make of what they saw."""

from __future__ import annotations

import pytest

from bench import dns_clients, dns_failover, dns_speed
from ifdefault.lab.clients_by_name import Visit

A, B = "203.0.113.10", "198.51.100.10"


def test_an_outage_is_judged_by_its_visitors() -> None:
    """Cut at 100 s, detected at 100.5 s, over at 110 s."""
    begun = [
        Visit(99.5, "www", 4, A, "answered", 0.1),
        Visit(100.2, "www", 4, A, "hung", 2.0),
        Visit(100.7, "www", 6, "", "unresolved", 5.0),
        Visit(102.3, "www", 4, B, "answered", 0.1),
        Visit(112.0, "www", 4, A, "answered", 0.1),
    ]
    outcome = dns_clients.evaluate(begun, {A}, 100.0, 110.0, 100.5)
    assert (outcome.visits, outcome.failed) == (5, 2)
    assert outcome.detected_s == pytest.approx(0.5)
    assert outcome.last_failed_s == pytest.approx(0.7)
    assert outcome.back_s == pytest.approx(2.0)
    assert outcome.by_second == [(-1, 1, 0), (0, 2, 2), (2, 1, 0), (12, 1, 0)]


def test_what_never_came_back() -> None:
    outcome = dns_clients.evaluate(
        [Visit(99.0, "www", 4, A, "answered", 0.1)], {A}, 100.0, 110.0, None
    )
    assert (outcome.detected_s, outcome.last_failed_s, outcome.back_s) == (None, 0.0, None)


def test_a_lag_is_what_the_dns_adds() -> None:
    trial = dns_failover.Trial(detected_s=0.5, gone_s=0.53, up_s=2.0, back_s=None)
    assert trial.lag_ms == pytest.approx(30)
    assert trial.return_lag_ms is None


def test_all_kinds_of_questions_are_dnsperfs() -> None:
    """One that needs a cookie says where it goes."""
    assert [kind for kind, options in dns_speed.KINDS.items() if "COOKIE" in str(options)] == [
        "full cookie"
    ]

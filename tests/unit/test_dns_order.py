"""The order of addresses in responses: exact shares over a cycle, evenly distributed."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.dns.order import RecordOrder, combine, order, rotation, smooth
from ifdefault.model.dns import AddressRecord, Policy

GROUPS = st.integers(0, 5).map(lambda n: tuple(bytes([65 + at]) for at in range(n)))


def takes(one: RecordOrder, count: int) -> list[tuple[bytes, ...]]:
    return [one.take(turn) for turn in islice(one.cycle(), count)]


@given(GROUPS, GROUPS.map(lambda group: tuple(x.lower() for x in group)))
def test_each_of_a_group_is_first_equally_often(
    first: tuple[bytes, ...], others: tuple[bytes, ...]
) -> None:
    rounds = max(1, len(first)) * max(1, len(others))
    found = takes(rotation(first, others), rounds)
    for got in found:
        assert sorted(got[: len(first)]) == sorted(first)
        assert sorted(got[len(first) :]) == sorted(others)
    for at, group in ((0, first), (len(first), others)):
        if group:
            assert set(Counter(got[at] for got in found).values()) == {rounds // len(group)}


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8))
def test_shares_are_exact_over_a_cycle(weights: list[int]) -> None:
    places = list(smooth(weights))
    counts = Counter(places)
    assert all(counts[at] * sum(weights) == len(places) * w for at, w in enumerate(weights))
    total = sum(weights)
    for at, weight in enumerate(weights):  # nor is anyone ever ahead or behind by much
        seen = 0
        for turn, place in enumerate(places, 1):
            seen += place == at
            assert abs(seen - turn * weight / total) < len(weights)


def test_even_within_a_cycle() -> None:
    assert list(smooth([5, 1, 1])) == [0, 0, 1, 0, 2, 0, 0]
    assert list(smooth([1000, 1000])) == [0, 1]
    assert len(list(smooth([999, 1000]))) == 1999


@pytest.mark.parametrize(
    ("policy", "uplink", "found"),
    [
        ("rotate", "b", [b"312", b"123", b"231", b"312"]),
        ("failover", "b", [b"123"] * 4),
        ("weighted", "b", [b"3", b"1", b"2", b"3"]),
        ("arrival", "b", [b"231", b"321", b"231", b"321"]),
        ("arrival", "a", [b"123", b"132", b"123", b"132"]),
        ("arrival", "", [b"123", b"231", b"312", b"123"]),
        ("arrival-only", "b", [b"23", b"32", b"23", b"32"]),
        ("arrival-only", "a", [b"1"] * 4),
        ("arrival-only", "c", [b"123", b"231", b"312", b"123"]),
    ],
)
def test_policies(policy: Policy, uplink: str, found: list[bytes]) -> None:
    handed = [AddressRecord("a", "1", 1), AddressRecord("b", "2", 1), AddressRecord("b", "3", 2)]
    got = takes(order(policy, handed, (b"1", b"2", b"3"), uplink), 4)
    assert [b"".join(each) for each in got] == found


def test_a_full_line_is_first_as_rarely_as_its_weight_says() -> None:
    handed = [AddressRecord("a", "1", 2), AddressRecord("b", "2", 8), AddressRecord("c", "3", 8)]
    firsts = Counter(each[0] for each in takes(order("rotate", handed, (b"1", b"2", b"3")), 18))
    assert firsts == {b"1": 2, b"2": 8, b"3": 8}


def test_in_step() -> None:
    both = combine(
        [rotation((b"1", b"2")), rotation((b"a", b"b", b"c"))], lambda taken: sum(taken, ())
    )
    assert [b"".join(each) for each in takes(both, 3)] == [b"12abc", b"21bca", b"12cab"]

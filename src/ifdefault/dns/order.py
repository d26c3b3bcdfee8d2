"""The order of a name's addresses in responses, by its policy.

Rules: a RecordOrder is a cycle of turns, and the records for each turn. Each address gets its exact
share over a complete cycle, evenly distributed within it: with `weighted`, of the answers, with
`rotate`, of the first places. The other policies don't use weights. `cycle` starts a new iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, repeat
from math import gcd, lcm
from typing import Any, TypeAlias

from ifdefault.model.dns import AddressRecord, Policy

Turn: TypeAlias = Any  # an int, or a tuple of them: yielded by a cycle, passed to `take`
Rdatas: TypeAlias = tuple[bytes, ...]
BY_ARRIVAL: tuple[Policy, ...] = ("arrival", "arrival-only")


@dataclass(frozen=True, slots=True)
class RecordOrder:
    """`cycle` returns an endless iterator of turns, `take` the ordered data for a turn."""

    cycle: Callable[[], Iterator[Turn]]
    take: Callable[[Turn], Rdatas]


def order(
    policy: Policy, records: Sequence[AddressRecord], rdatas: Rdatas, uplink: str = ""
) -> RecordOrder:
    """The order of the addresses of one family for queries received by an uplink. `rdatas` are the
    data of `records`. Uplinks may share an address."""
    distinct = unique(rdatas)
    if policy == "failover":
        return fixed(distinct)
    if policy == "weighted":
        return weighted(rdatas, [record.weight for record in records])
    if policy in BY_ARRIVAL:
        pairs = zip(records, rdatas, strict=True)
        first = unique(rdata for record, rdata in pairs if record.uplink == uplink)
        others = tuple(rdata for rdata in distinct if rdata not in first)
        return rotation(first) if first and policy == "arrival-only" else rotation(first, others)
    weights = dict(zip(rdatas, (record.weight for record in records), strict=True))
    shares = [weights[rdata] for rdata in distinct]
    return replace(rotation(distinct), cycle=lambda: cycle(smooth(shares)))


def unique(rdatas: Iterable[bytes]) -> Rdatas:
    return tuple(dict.fromkeys(rdatas))


def fixed(rdatas: Rdatas) -> RecordOrder:
    return RecordOrder(partial(repeat, 0), lambda _: rdatas)


def rotation(*groups: Rdatas) -> RecordOrder:
    """All data, group after group; each group is rotated by one at each turn."""
    filled = [group for group in groups if group]

    def take(turn: Turn) -> Rdatas:
        turned = [(group, turn % len(group)) for group in filled]
        return tuple(rdata for group, at in turned for rdata in group[at:] + group[:at])

    return RecordOrder(partial(cycle, range(lcm(*map(len, filled)))), take)


def weighted(rdatas: Rdatas, weights: Sequence[int]) -> RecordOrder:
    """One datum at each turn."""
    return RecordOrder(lambda: cycle(smooth(weights)), lambda turn: (rdatas[turn],))


def smooth(weights: Sequence[int]) -> Iterator[int]:
    """One cycle of indexes, each as often as its weight, evenly distributed: smooth weighted round
    robin, as in nginx."""
    divisor = gcd(*weights)
    shares = [weight // divisor for weight in weights]
    total, credit = sum(shares), [0] * len(shares)
    for _ in range(total):
        credit = [value + share for value, share in zip(credit, shares, strict=True)]
        best = credit.index(max(credit))
        credit[best] -= total
        yield best


def combine(orders: Sequence[RecordOrder], merge: Callable[[list[Rdatas]], Rdatas]) -> RecordOrder:
    """Several orders in step: `merge` gets the data of each for a turn."""

    def take(turn: Turn) -> Rdatas:
        return merge([one.take(step) for one, step in zip(orders, turn, strict=True)])

    return RecordOrder(lambda: zip(*(one.cycle() for one in orders), strict=False), take)

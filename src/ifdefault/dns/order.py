"""In which order a name's addresses are handed out, by its policy.

Rules: a RecordOrder is a cycle of turns, and what to say at each. Whoever follows one cycle gives
each its due: exactly over a whole cycle, evenly within it. `cycle` gives a new beginning each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, repeat
from math import gcd, lcm
from typing import Any, TypeAlias

from ifdefault.model.dns import AddressRecord, Policy

Turn: TypeAlias = Any  # an int, or a tuple of them: whatever the cycle gives and `take` takes
Rdatas: TypeAlias = tuple[bytes, ...]
BY_ARRIVAL: tuple[Policy, ...] = ("arrival", "arrival-only")


@dataclass(frozen=True, slots=True)
class RecordOrder:
    """`cycle` makes an endless iterator of turns, `take` tells the data, in order, at a turn."""

    cycle: Callable[[], Iterator[Turn]]
    take: Callable[[Turn], Rdatas]


def order(
    policy: Policy, handed: Sequence[AddressRecord], rdatas: Rdatas, uplink: str = ""
) -> RecordOrder:
    """How to hand out the addresses of one family to those whose queries come in by an uplink.
    Uplinks may share an address."""
    single = unique(rdatas)
    if policy == "failover":
        return fixed(single)
    if policy == "weighted":
        return weighted(rdatas, [each.weight for each in handed])
    if policy in BY_ARRIVAL:
        pairs = zip(handed, rdatas, strict=True)
        first = unique(rdata for each, rdata in pairs if each.uplink == uplink)
        others = tuple(rdata for rdata in single if rdata not in first)
        return rotation(first) if first and policy == "arrival-only" else rotation(first, others)
    return rotation(single)


def unique(rdatas: Iterable[bytes]) -> Rdatas:
    return tuple(dict.fromkeys(rdatas))


def fixed(rdatas: Rdatas) -> RecordOrder:
    return RecordOrder(partial(repeat, 0), lambda _: rdatas)


def rotation(*groups: Rdatas) -> RecordOrder:
    """All of them, one group behind the other, each beginning one further at each turn."""
    some = [group for group in groups if group]

    def take(turn: Turn) -> Rdatas:
        turned = [(group, turn % len(group)) for group in some]
        return tuple(rdata for group, at in turned for rdata in group[at:] + group[:at])

    return RecordOrder(partial(cycle, range(lcm(*map(len, some)))), take)


def weighted(rdatas: Rdatas, weights: Sequence[int]) -> RecordOrder:
    """One of them at each turn."""
    return RecordOrder(lambda: cycle(smooth(weights)), lambda turn: (rdatas[turn],))


def smooth(weights: Sequence[int]) -> Iterator[int]:
    """One cycle of places, each as often as its weight says, spread evenly: whoever is owed most
    comes next, and pays for all (nginx's smooth weighted round robin)."""
    whole = gcd(*weights)
    shares = [weight // whole for weight in weights]
    total, owed = sum(shares), [0] * len(shares)
    for _ in range(total):
        owed = [debt + share for debt, share in zip(owed, shares, strict=True)]
        best = owed.index(max(owed))
        owed[best] -= total
        yield best


def together(orders: Sequence[RecordOrder], say: Callable[[list[Rdatas]], Rdatas]) -> RecordOrder:
    """Several orders in step: `say` is told what each takes."""

    def take(turn: Turn) -> Rdatas:
        return say([each.take(step) for each, step in zip(orders, turn, strict=True)])

    return RecordOrder(lambda: zip(*(each.cycle() for each in orders), strict=False), take)

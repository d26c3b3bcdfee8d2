"""Sets of addresses, given as many prefixes of one family.

Rules: pure. A block is a prefix as (first address, length), numerically; `bits` is the length of an
address. A list of blocks is sorted, and none of them contains another.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

Block = tuple[int, int]


def first_of(address: int, length: int, bits: int) -> int:
    """The first address of the block of this length that an address is in."""
    return address >> bits - length << bits - length


def merge(blocks: Iterable[Block], bits: int) -> list[Block]:
    """The fewest blocks that have the same addresses."""
    merged: list[Block] = []
    for first, length in sorted(blocks):
        if merged and first_of(first, merged[-1][1], bits) == merged[-1][0]:
            continue  # inside the one before
        merged.append((first, length))
        while len(merged) > 1 and _are_halves(merged[-2], merged[-1], bits):
            merged.pop()
            low, length = merged.pop()
            merged.append((low, length - 1))
    return merged


def _are_halves(low: Block, high: Block, bits: int) -> bool:
    """Whether two blocks, the lower one first, are the halves of a third."""
    if low[1] != high[1]:
        return False
    shift = bits - low[1]
    return (low[0] >> shift) & 1 == 0 and low[0] >> shift ^ high[0] >> shift == 1


def cover(blocks: Iterable[Block], bits: int, most: int) -> list[Block]:
    """At most so many blocks that have these addresses, and no others unless there are too many."""
    merged = merge(blocks, bits)
    if len(merged) <= most:
        return merged
    length = bisect.bisect(  # the longest that is short enough
        range(bits + 1), most, key=lambda n: len(merge(_shortened(merged, bits, n), bits))
    )
    return merge(_shortened(merged, bits, max(0, length - 1)), bits)


def _shortened(blocks: Iterable[Block], bits: int, longest: int) -> Iterable[Block]:
    return (
        (first, length) if length <= longest else (first_of(first, longest, bits), longest)
        for first, length in blocks
    )


class PrefixSet:
    """The addresses of many blocks, of which `merge` or `cover` made the list."""

    def __init__(self, blocks: Sequence[Block], bits: int) -> None:
        self._first = [first for first, _ in blocks]
        self._after = [first + (1 << bits - length) for first, length in blocks]

    def __len__(self) -> int:
        return len(self._first)

    def __contains__(self, address: int) -> bool:
        index = bisect.bisect_right(self._first, address) - 1
        return index >= 0 and address < self._after[index]

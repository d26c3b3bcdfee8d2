"""Many prefixes as few: the same addresses, or more where they must not be too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.model.prefix_set import Block, PrefixSet, cover, merge

BITS = 8
blocks = st.lists(
    st.integers(0, BITS).flatmap(
        lambda length: st.integers(0, (1 << length) - 1).map(lambda n: (n << BITS - length, length))
    ),
    max_size=60,
)


def addresses(some: list[Block]) -> set[int]:
    return {n for first, length in some for n in range(first, first + (1 << BITS - length))}


@given(blocks)
def test_merged_blocks_have_the_same_addresses_and_none_can_be_merged(some: list[Block]) -> None:
    merged = merge(some, BITS)
    assert addresses(merged) == addresses(some)
    assert merged == merge(merged, BITS) == sorted(merged)
    assert len(merged) <= len(some)
    known = PrefixSet(merged, BITS)
    assert {n for n in range(1 << BITS) if n in known} == addresses(some)
    for first, length in merged:  # neither is its other half there
        assert not length or not {first ^ 1 << BITS - length} & {
            other for other, of_length in merged if of_length == length
        }


@given(blocks, st.integers(1, 20))
def test_a_cover_has_all_addresses_and_never_too_many_blocks(some: list[Block], most: int) -> None:
    covering = cover(some, BITS, most)
    assert len(covering) <= most
    assert addresses(covering) >= addresses(some)
    if len(merge(some, BITS)) <= most:
        assert addresses(covering) == addresses(some)

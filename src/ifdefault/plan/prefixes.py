"""Arithmetic on addresses and prefixes as text.

Rules: numerically, an address is an integer and a prefix a pair (first address, length). "default"
is the prefix of length 0. Results are cached, since a plan uses the same few many times.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Container, Iterable, Iterator, Mapping

from ifdefault.model import prefix_set
from ifdefault.model.address import BITS
from ifdefault.model.config import Family


@functools.lru_cache(maxsize=65536)
def number(address: str) -> int:
    return int(ipaddress.ip_address(address))


def text(family: Family, value: int) -> str:
    if family == 4:
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    return str(ipaddress.IPv6Address(value))


@functools.lru_cache(maxsize=65536)
def network(prefix: str) -> tuple[int, int]:
    """A prefix as (first address, length)."""
    if prefix in ("default", ""):
        return 0, 0
    address, _, length = prefix.partition("/")
    bits = 128 if ":" in address else 32
    size = int(length) if length else bits
    return prefix_set.first_of(number(address), size, bits), size


def contains(family: Family, prefix: str, address: str) -> bool:
    first, length = network(prefix)
    return first == prefix_set.first_of(number(address), length, BITS[family])


def covering(
    by_length: Mapping[int, Container[int]], address: int, bits: int
) -> Iterator[tuple[int, int]]:
    """Those of many prefixes that contain an address, as (length, first address), the longest
    first. `by_length`: their first addresses."""
    for length in sorted(by_length, reverse=True):
        first = prefix_set.first_of(address, length, bits)
        if first in by_length[length]:
            yield length, first


def merged(family: Family, cidrs: Iterable[str]) -> list[str]:
    """The fewest prefixes, each with its length, that have exactly these addresses."""
    blocks = prefix_set.merge(map(network, cidrs), BITS[family])
    return [f"{text(family, first)}/{length}" for first, length in blocks]


def disjoint(family: Family, cidrs: Iterable[str]) -> list[str]:
    """The prefixes without those contained in another: nft rejects overlaps in a set."""
    networks = sorted({network(c) for c in cidrs}, key=lambda n: (n[1], n[0]))
    kept: list[str] = []
    for first, length in networks:
        address = text(family, first)
        if not any(contains(family, other, address) for other in kept):
            kept.append(f"{address}/{length}" if length < BITS[family] else address)
    return kept

"""Arithmetic on addresses and prefixes as text.

Rules: an address is an integer here, a prefix a pair (first address, length); results are cached,
since one plan asks for the same few again and again. ("default" is the prefix of length 0.)
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from ifdefault.model.address import BITS
from ifdefault.model.config import Family


@functools.lru_cache(maxsize=65536)
def number(address: str) -> int:
    return int(ipaddress.ip_address(address))


def text(family: Family, value: int) -> str:
    if family == 4:
        return str(ipaddress.IPv4Address(value))
    return str(ipaddress.IPv6Address(value))


@functools.lru_cache(maxsize=65536)
def network(prefix: str) -> tuple[int, int]:
    """A prefix as (first address, length)."""
    if prefix in ("default", ""):
        return 0, 0
    address, _, length = prefix.partition("/")
    bits = 128 if ":" in address else 32
    size = int(length) if length else bits
    return number(address) >> (bits - size) << (bits - size), size


def contains(family: Family, prefix: str, address: str) -> bool:
    first, length = network(prefix)
    return first == number(address) >> (BITS[family] - length) << (BITS[family] - length)


def disjoint(family: Family, cidrs: Iterable[str]) -> list[str]:
    """Prefixes without those that lie in another: nft refuses overlaps in one set."""
    networks = sorted({network(c) for c in cidrs}, key=lambda n: (n[1], n[0]))
    kept: list[str] = []
    for first, length in networks:
        address = text(family, first)
        if not any(contains(family, other, address) for other in kept):
            kept.append(f"{address}/{length}" if length < BITS[family] else address)
    return kept

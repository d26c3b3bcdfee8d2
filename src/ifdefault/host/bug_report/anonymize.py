"""Replaces public addresses, MACs and names by others, the same by the same.

    5.9.10.7     another address; those that share n bits with it share n bits with the other
    2a01:4f8::1  likewise in its first 64 bits; an interface identifier follows its MAC
    www.example.net  other labels below the top level

Rules: what isn't public stays (RFC 6890): private, link-local, documentation. A public address
stays public, since no bit is changed that leads to another kind of block; thus routes, prefixes and
decisions remain what they were. The key is made for one archive and forgotten.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

_V4_BITS, _V6_BITS = 24, 64  # beyond them, IPv4 addresses and prefixes keep their bits
_FORM4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?![\w]|\.\d)"
_FORM6 = r"(?<![\w:.])(?=[0-9a-fA-F:]*:[0-9a-fA-F:]*:)[0-9a-fA-F:]{2,39}(?:/\d{1,3})?(?![\w:]|\.\d)"
_FORM_MAC = r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])"
_ANY = re.compile(f"(?P<mac>{_FORM_MAC})|(?P<v4>{_FORM4})|(?P<v6>{_FORM6})")
# IANA's special-purpose registries, and what is no unicast address
_SPECIAL4 = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
    *("192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
)
_SPECIAL6 = ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
_BLOCKS6 = tuple(map(ipaddress.IPv6Network, _SPECIAL6))
_GLOBAL6 = ipaddress.IPv6Network("2000::/3")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Anonymizer:
    """`names`: those to replace, with all names below them."""

    def __init__(self, key: bytes, names: Iterable[str] = ()) -> None:
        self._key = key
        self._map = lru_cache(maxsize=None)(self._bits)
        self._guarded = {4: _paths(_SPECIAL4), 6: _paths(_SPECIAL6)}
        longest_first = sorted({n.strip(".").lower() for n in names} - {""}, key=lambda n: -len(n))
        # a single label is a host's name, and might be part of anything else
        forms = (re.escape(name) for name in longest_first)
        self._names = re.compile(
            rf"(?i)(?<![\w+-])(?:[\w.+-]+@)?(?:[\w-]+\.)*(?:{'|'.join(forms)})(?![\w-])"
            if longest_first
            else r"(?!)"
        )

    def text(self, text: str) -> str:
        return self._names.sub(self._name, _ANY.sub(self._match, text))

    def _match(self, match: re.Match[str]) -> str:
        if match["mac"]:
            return self._mac(match["mac"].lower())
        text, slash, length = match[0].partition("/")
        end = ":" if text.endswith(":") and not text.endswith("::") else ""
        text = text.removesuffix(end)
        try:
            address = ipaddress.ip_address(text)
            if length and int(length) > address.max_prefixlen:
                return match[0]
        except ValueError:  # a time, a version
            return match[0]
        mapped = self._address(address, int(length) if length else address.max_prefixlen)
        return match[0] if mapped == address else f"{mapped}{end}{slash}{length}"

    def _address(self, address: _Address, length: int) -> _Address:
        """An address stays as it is unless it is public; a prefix stays one."""
        value, size = int(address), address.max_prefixlen
        low = size - (_V4_BITS if size == 32 else _V6_BITS)
        rest, high = value & ((1 << low) - 1), value >> low
        is_public = size == 32 or (
            address in _GLOBAL6 and not any(address in block for block in _BLOCKS6)
        )
        if size == 128 and (is_public or _has_mac(rest)):
            rest = self._interface(rest)
        mapped = (self._map(address.version, size - low, high) if is_public else high) << low | rest
        host_bits = (1 << (size - length)) - 1
        if not value & host_bits:
            mapped &= ~host_bits
        return type(address)(mapped)

    def _bits(self, version: int, count: int, high: int) -> int:
        """The first bits of an address, each changed or not by those before it."""
        mapped, prefix, guarded = 0, 1, self._guarded[version]
        for n in range(count - 1, -1, -1):
            bit = high >> n & 1
            kind = guarded.get(prefix, "free")
            if kind == "special":  # and all below it
                return mapped << (n + 1) | high & ((2 << n) - 1)
            mapped = mapped << 1 | bit ^ (kind == "free" and self._hash(version, prefix)[0] & 1)
            prefix = prefix << 1 | bit
        return mapped

    def _interface(self, identifier: int) -> int:
        """An interface identifier (RFC 4291): a MAC's is that of its replacement, small ones, given
        by hand, stay, all others are replaced."""
        if identifier < 1 << 32:
            return identifier
        if _has_mac(identifier):
            data = identifier.to_bytes(8, "big")
            mac = bytes((data[0] ^ 2, *data[1:3], *data[5:]))
            new = bytes.fromhex(self._mac(mac.hex(":")).replace(":", ""))
            return int.from_bytes(bytes((new[0] ^ 2,)) + new[1:3] + b"\xff\xfe" + new[3:], "big")
        return int.from_bytes(self._hash("iid", identifier)[:8], "big") | 1 << 32

    def _mac(self, mac: str) -> str:
        data = bytes.fromhex(mac.replace(":", ""))
        if data[0] & 1 or not any(data):  # multicast, broadcast, none
            return mac
        new = self._hash("mac", int.from_bytes(data, "big"))
        return bytes((new[0] & 0xFC | data[0] & 3, *new[1:6])).hex(":")

    def _name(self, match: re.Match[str]) -> str:
        local, at, name = match[0].lower().rpartition("@")
        *labels, top = name.split(".")
        new = [self._label(label) for label in labels or [top]]
        return (self._label(local) + at if at else "") + ".".join([*new, top] if labels else new)

    def _label(self, label: str) -> str:
        if label in ("*", "_acme-challenge") or label.startswith("_"):
            return label
        return "n" + self._hash("name", label)[:4].hex()

    def _hash(self, *what: object) -> bytes:
        return hashlib.blake2b(repr(what).encode("utf-8"), key=self._key, digest_size=16).digest()


def _has_mac(identifier: int) -> bool:
    return identifier >> 24 & 0xFFFF == 0xFFFE


def _paths(blocks: Iterable[str]) -> dict[int, str]:
    """The prefixes that lead to a special block, and those blocks: as bits after a leading 1."""
    paths: dict[int, str] = {}
    for block in map(ipaddress.ip_network, blocks):
        bits = int(block.network_address) >> (block.max_prefixlen - block.prefixlen)
        for n in range(block.prefixlen):
            paths.setdefault(1 << n | bits >> (block.prefixlen - n), "above")
        paths[1 << block.prefixlen | bits] = "special"
    return paths

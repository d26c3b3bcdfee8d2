"""Properties of addresses."""

from __future__ import annotations

import functools
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

BITS: dict[int, int] = {4: 32, 6: 128}

# RFC 1918, RFC 6598, RFC 3927, RFC 4193
_PRIVATE = tuple(
    map(
        ip_network,
        "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 169.254.0.0/16 fc00::/7".split(),
    )
)


def family_of(address: str) -> Literal[4, 6]:
    """The family of an address or a prefix."""
    return 6 if ":" in address else 4


def is_address(host: str) -> bool:
    """Whether a host is given by its address rather than by a name, which never ends in a number
    (RFC 3696, 2)."""
    return ":" in host or host.replace(".", "").isdigit()


@functools.lru_cache(maxsize=1024)  # of the uplinks' addresses, at each publication
def is_private(address: str) -> bool:
    """Whether an address is unreachable from the Internet. Documentation prefixes count as
    reachable."""
    parsed = ip_address(address)
    return any(parsed in network for network in _PRIVATE)


def is_public(text: str, family: int) -> bool:
    """Whether this is a public unicast address of a family."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    local = address.is_loopback or address.is_unspecified or address.is_link_local
    # Python 3.13 and later look at the IPv4 address in a mapped one
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    invalid = local or mapped or address.is_multicast or address.is_reserved
    return address.version == family and not invalid and not is_private(text)

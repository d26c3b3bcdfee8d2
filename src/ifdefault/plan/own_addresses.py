"""The host's own addresses: of its interfaces, and those that local routes hold.

Rules: cloud agents deliver an address by `ip route add local` instead of adding it to an interface,
and AnyIP delivers whole prefixes. Such an address is the host's like any other, except that the
kernel doesn't take it as the `src` of an IPv6 route.
"""

from __future__ import annotations

from ifdefault.model.address import BITS, family_of
from ifdefault.model.kernel import Address, Facts
from ifdefault.plan import prefixes


class OwnAddresses:
    """`usable`: the addresses that an uplink may have, in kernel order."""

    def __init__(self, facts: Facts) -> None:
        self._assigned = {a.address: a for a in facts.addresses}
        held = [r for r in facts.local or () if r.hops]
        self._prefixes = [r for r in held if prefixes.network(r.dst)[1] < BITS[r.family]]
        single = (
            (r, r.dst.partition("/")[0])
            for r in held
            if prefixes.network(r.dst)[1] == BITS[r.family]
        )
        self.usable = (
            *(a for a in facts.addresses if is_usable(a)),
            *(
                Address(r.family, r.hops[0].dev, address, BITS[r.family])
                for r, address in single
                if address not in self._assigned
            ),
        )
        self._by_text = {a.address: a for a in self.usable}

    def find(self, address: str) -> Address | None:
        """A usable address of the host; it may be one of many that a local route delivers."""
        if address in self._by_text or address in self._assigned:
            return self._by_text.get(address)
        family = family_of(address)
        for route in self._prefixes:
            if route.family == family and prefixes.contains(family, route.dst, address):
                return Address(family, route.hops[0].dev, address, BITS[family])
        return None

    def __contains__(self, address: str) -> bool:
        return address in self._assigned or self.find(address) is not None


def is_usable(address: Address) -> bool:
    return address.scope < 253 and not address.tentative

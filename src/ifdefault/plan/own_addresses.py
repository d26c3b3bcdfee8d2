"""The host's own addresses: of its interfaces, and those that local routes hold.

Rules: cloud agents deliver an address by `ip route add local` instead of adding it to an interface,
and AnyIP delivers whole prefixes. Such an address is the host's like any other, except that the
kernel doesn't take it as the `src` of an IPv6 route.
"""

from __future__ import annotations

import functools

from ifdefault.model.address import BITS, family_of
from ifdefault.model.kernel import Address, Facts, Route
from ifdefault.model.many import Many
from ifdefault.plan import prefixes


def own_addresses(facts: Facts) -> OwnAddresses:
    return _own_addresses(Many.of(facts.addresses), facts.local and Many.of(facts.local))


class OwnAddresses:
    """`usable`: the addresses that an uplink may have, in kernel order. `order`: the place of each
    address that an interface has."""

    def __init__(self, addresses: Many[Address], local: Many[Route] | None) -> None:
        self.order = {a.address: n for n, a in enumerate(addresses)}
        held = [r for r in local or () if r.hops]
        self._prefixes = [r for r in held if prefixes.network(r.dst)[1] < BITS[r.family]]
        single = (
            (r, r.dst.partition("/")[0])
            for r in held
            if prefixes.network(r.dst)[1] == BITS[r.family]
        )
        self.usable = (
            *(a for a in addresses if is_usable(a)),
            *(
                Address(r.family, r.hops[0].dev, address, BITS[r.family])
                for r, address in single
                if address not in self.order
            ),
        )
        self._by_text = {a.address: a for a in self.usable}
        self._by_device: dict[str, list[Address]] = {}
        for a in self.usable:
            self._by_device.setdefault(a.dev, []).append(a)

    def of_interface(self, interface: str) -> tuple[Address, ...]:
        """The usable addresses of an interface, sorted."""
        own = self._by_device.get(interface, ())
        return tuple(sorted(own, key=lambda a: (a.family, prefixes.number(a.address))))

    def find(self, address: str) -> Address | None:
        """A usable address of the host; it may be one of many that a local route delivers."""
        if address in self._by_text or address in self.order:
            return self._by_text.get(address)
        family = family_of(address)
        for route in self._prefixes:
            if route.family == family and prefixes.contains(family, route.dst, address):
                return Address(family, route.hops[0].dev, address, BITS[family])
        return None

    def __contains__(self, address: str) -> bool:
        return address in self.order or self.find(address) is not None


_own_addresses = functools.lru_cache(maxsize=2)(OwnAddresses)


def is_usable(address: Address) -> bool:
    return address.scope < 253 and not address.tentative

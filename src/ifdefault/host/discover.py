"""Find the uplinks among this host's interfaces.

Rules: pure. An uplink has a default route, a router of a global IPv6 prefix, or a public address on
a line that can have a router or needs none. Ports of bridges and bonds, members of VRFs, bridges of
containers, VPNs and virtual addresses of VRRP are no uplinks. Where only the owner knows, the
interface is passed over, with what to configure if it is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ifdefault.model.address import BITS, family_of, is_private
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.kernel import PROTOCOL, TABLE_MAIN, Address, Facts, Hop, Link
from ifdefault.model.text import is_utf8
from ifdefault.plan import prefixes, tables
from ifdefault.plan.kernel_default import KernelDefault, KernelDefaults
from ifdefault.plan.lookup import REFUSALS
from ifdefault.plan.numbers import PARTS_OF_DEFAULT
from ifdefault.plan.own_addresses import OwnAddresses, own_addresses

_DEFAULTS = Config(())
# kinds of links (`ip -d link`) that may lead to a provider even without a default route; hardware
# has none. A veth is the network card of a container.
_LINES = ("", "bond", "dsa", "ipoib", "macsec", "ppp", "rmnet", "team", "veth", "vlan", "wwan")
_VPNS = ("ovpn", "tun", "vti", "vti6", "wireguard", "xfrm")
_UNFIT = re.compile(r"[^a-z0-9]+")  # for the name of an uplink
_NOT_UTF8 = "may be an uplink, but its name isn't UTF-8; rename it, then run init again"
_SHARED_CARDS = ("ipvlan", "macvlan", "macvtap")


@dataclass(frozen=True, slots=True)
class Discovery:
    """`balanced`: the hops of the kernel's multipath default, () if it has none."""

    uplinks: tuple[Candidate, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    balanced: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An interface that may be an uplink, or be taken for one. `gateways`: what to configure if it
    is; None if it can't be."""

    interface: str
    why: str
    gateways: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An interface that leads to a provider. `gateways` has the kernel's gateways by family, "" if
    the link needs none. `routers` are neighbours that are routers, but not of a default route.
    What is fixed is written into the config, since the kernel won't know it for long."""

    interface: str
    addresses: tuple[Address, ...] = ()
    gateways: tuple[tuple[Family, str], ...] = ()
    routers: tuple[str, ...] = ()
    defaults: tuple[KernelDefault, ...] = ()
    name: str = ""
    fixed_addresses: tuple[str, ...] = ()
    fixed_gateways: tuple[str, ...] = ()
    routed: tuple[str, ...] = ()

    @property
    def unknown(self) -> tuple[Family, ...]:
        """The families in which it has addresses but no known gateway."""
        known = {family for family, _ in self.gateways}
        known |= {family_of(router) for router in self.routers}
        return tuple(f for f in FAMILIES if f not in known and self.of(f))

    @property
    def shared(self) -> bool:
        """Whether it may be a LAN with several providers' routers, as it has several prefixes."""
        on_lan = (a for a in self.of(4) if a.dev == self.interface and _may_have_router(a))
        return len(prefixes.disjoint(4, [f"{a.address}/{a.prefixlen}" for a in on_lan])) > 1

    def of(self, family: Family) -> list[Address]:
        return [address for address in self.addresses if address.family == family]


def discover(facts: Facts) -> Discovery:
    """The uplinks, the one with the current default route first, and what was passed over."""
    defaults, own = KernelDefaults(_DEFAULTS, facts), own_addresses(facts)
    uplinks, passed_over = [], []
    for link in facts.links:
        match _judge(facts, link, defaults, own):
            case Candidate() | PassedOver(gateways=(*_,)) if not is_utf8(link.name):
                passed_over.append(PassedOver(link.name, _NOT_UTF8))
            case Candidate() as candidate:
                uplinks.append(candidate)
            case PassedOver() as passed:
                passed_over.append(passed)
    order = {family: defaults.interfaces(family) for family in FAMILIES}

    def preference(candidate: Candidate) -> list[tuple[int, bool]]:
        places = ((dict.fromkeys((*order[f], candidate.interface)), f) for f in FAMILIES)
        with_default = dict(candidate.gateways)
        return [(list(at).index(candidate.interface), f not in with_default) for at, f in places]

    uplinks.sort(key=preference)  # stable: otherwise in the order of the links
    interfaces = {candidate.interface for candidate in uplinks}
    balanced = tuple(hop for hop in defaults.balanced() if hop.dev in interfaces)
    return Discovery(
        tuple(uplinks),
        tuple(passed_over),
        balanced if len({hop.dev for hop in balanced}) > 1 else (),
    )


def _judge(
    facts: Facts, link: Link, defaults: KernelDefaults, own: OwnAddresses
) -> Candidate | PassedOver | None:
    if link.loopback or not link.up:
        return None
    if master := next((other for other in facts.links if other.index == link.master), None):
        if master.kind != "vrf":  # a port of a bridge or bond, which has the addresses
            return None
        return PassedOver(link.name, f"is in the VRF {master.name}, whose routing is its own")
    addresses = [a for a in own.of_interface(link.name) if _is_publishable(a)]
    found = tuple(_defaults_of(link, defaults, addresses))
    if link.kind in _VPNS:
        if any(default.route.table == TABLE_MAIN for default in found):
            return PassedOver(link.name, "is a VPN; new connections will no longer use its default")
        return None
    for default in found:  # an address that the default names as its source may be on loopback
        source = own.find(default.route.src) if default.route.src else None
        if source and source not in addresses:
            addresses.append(source)
    gateways = tuple((default.route.family, default.hop.gateway) for default in found)
    if gateways:
        return Candidate(link.name, tuple(addresses), gateways, defaults=found)
    return _without_default(facts, link, tuple(addresses))


def _is_publishable(address: Address) -> bool:
    """Whether it is fit for the DNS: not link-local, temporary or deprecated."""
    temporary = address.deprecated or (address.family == 6 and address.secondary)
    return address.scope == 0 and not temporary


def _defaults_of(
    link: Link, defaults: KernelDefaults, addresses: list[Address]
) -> Iterator[KernelDefault]:
    for family in FAMILIES:
        sources = [a.address for a in addresses if a.family == family]
        default = defaults.find(link.name, family, sources)
        # a tunnel's default in a table of its own is that of a VPN
        is_line = not link.point_to_point or link.kind in _LINES
        if default and (is_line or default.route.table == TABLE_MAIN):
            yield default


def _without_default(
    facts: Facts, link: Link, addresses: tuple[Address, ...]
) -> Candidate | PassedOver | None:
    if not addresses:
        return None
    if all(_is_delegated(facts, a) for a in addresses):
        why = "has a prefix that a provider delegates to this host; if it is to leave by that"
        why = f"({_listed(addresses)}) {why} uplink only, list it in the uplink's routed"
        return PassedOver(link.name, why)
    public = not any(is_private(a.address) for a in addresses)
    if link.kind in _SHARED_CARDS and public:
        why = "has no default route; add its addresses to those of the uplink that they belong to"
        return PassedOver(link.name, f"({_listed(addresses)}) is a {link.kind} that {why}")
    if link.kind not in _LINES and not _is_bridge_to_outside(facts, link):
        return None
    if link.point_to_point:
        if public:
            families = sorted({a.family for a in addresses})
            return Candidate(link.name, addresses, tuple((family, "") for family in families))
        return PassedOver(
            link.name, f"({_listed(addresses)}) has a private address and no default route", ()
        )
    routers = _routers_of_routes(facts, link)
    in_prefixes = [guess_router(a) for a in addresses if _may_have_router(a)]
    if not routers and not in_prefixes:
        return None
    if not public or not in_prefixes:
        guesses = [*routers, *sorted(in_prefixes, key=family_of)]
        has = "no default route" if public else "a private address and no default route"
        return PassedOver(link.name, f"({_listed(addresses)}) has {has}", tuple(guesses[:1]))
    routers = tuple(
        n.address
        for n in facts.neighbours
        if n.dev == link.name and n.router and any(a.family == n.family for a in addresses)
    )[:1]
    return Candidate(link.name, addresses, (), routers)


def _routers_of_routes(facts: Facts, link: Link) -> tuple[str, ...]:
    """The router of main's specific routes over a link, if there is one: clouds give an interface
    a /32, and by DHCP a route to its network."""
    routers = {
        hop.gateway
        for route in facts.routes
        if route.table == TABLE_MAIN and route.protocol != PROTOCOL
        for hop in route.hops
        if hop.dev == link.name and hop.gateway
    }
    return tuple(routers) if len(routers) == 1 else ()


def _is_bridge_to_outside(facts: Facts, link: Link) -> bool:
    """Whether it is a bridge with a port that isn't a container or a virtual machine."""
    ports = [port.kind for port in facts.links if port.master == link.index]
    return link.kind == "bridge" and any(kind in _LINES and kind != "veth" for kind in ports)


def _is_delegated(facts: Facts, address: Address) -> bool:
    """Whether it is in a prefix that a provider delegates to this host: the rest of it is refused
    (RFC 7084, WPD-5), as DHCPv6 clients do."""
    return any(
        route.kind in REFUSALS
        and prefixes.network(route.dst)[1] > PARTS_OF_DEFAULT[6]
        and prefixes.contains(6, route.dst, address.address)
        for route in tables.of(facts, 6, TABLE_MAIN)
        if address.family == 6
    )


def _listed(addresses: tuple[Address, ...]) -> str:
    return ", ".join(a.address for a in addresses)


def _may_have_router(address: Address) -> bool:
    return address.prefixlen < BITS[address.family]


def guess_router(address: Address) -> str:
    """A likely router: the first address of the prefix, or the second if the first is ours."""
    first, _ = prefixes.network(f"{address.address}/{address.prefixlen}")
    guess = prefixes.text(address.family, first + 1)
    return guess if guess != address.address else prefixes.text(address.family, first + 2)


def named(uplinks: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """With a valid name each: that of its table, or isp-a, isp-b, … isp-z, isp-27, …"""
    taken: set[str] = set()
    result = []
    for index, candidate in enumerate(uplinks):
        wish = _UNFIT.sub("-", candidate.name.lower()).strip("-")[:31].strip("-")
        chosen = wish if wish and wish not in taken else name(index)
        taken.add(chosen)
        result.append(replace(candidate, name=chosen))
    return tuple(result)


def name(index: int) -> str:
    return f"isp-{chr(ord('a') + index)}" if index < 26 else f"isp-{index + 1}"


def describe_interfaces(facts: Facts) -> str:
    """The interfaces and their addresses, for the error that no uplink was found."""
    descriptions = []
    for link in facts.links:
        if link.loopback:
            continue
        own = [f"{a.address}/{a.prefixlen}" for a in facts.addresses if a.dev == link.name]
        state = "" if link.up else " (down)"
        descriptions.append(f"{link.name}{state} with {', '.join(own) or 'no address'}")
    return "; ".join(descriptions) or "no interface but loopback"

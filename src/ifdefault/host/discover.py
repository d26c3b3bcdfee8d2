"""Find the uplinks among this host's interfaces, and write them as a working config.

Rules: pure. An uplink has a default route, a router of a global IPv6 prefix, or a public address on
a link that can have a router. Private networks, container bridges and VPNs have none of these: a
VPN has its default route in a table of its own, or as two halves. What the kernel knows is written
as comments, so that it isn't fixed in the config and may change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ifdefault.model.address import BITS, family_of, is_private
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.kernel import TABLE_MAIN, Address, Facts, Link
from ifdefault.plan import prefixes
from ifdefault.plan.resolve import kernel_default

_DEFAULTS = Config(())
_HEAD = """\
# ifdefault: every connection is answered through the uplink it came in on.
# Written by `ifdefault init`; all keys are in ifdefault.toml(5). Lines that are commented out show
# what the kernel has now, or the default; leave them so, and ifdefault follows changes.
"""
_RANK = """\
# rank = 0  # the lowest rank is primary: new outgoing connections use it
# weight = 1  # share when balancing; of equal rank, the greatest weight is primary"""
_HOST = """
# [host]
# mark_mask = "{0.mark_mask:#x}"  # six adjacent bits of marks that no other program uses
# table_base = {0.table_base}  # first of 32 routing tables
# rule_priority = {0.rule_priority}  # first of 51 priorities of policy rules
# source_check = "{0.source_check}"  # packets leaving by a wrong uplink; or "drop", "count", "off"
# udp_wildcard = "{0.udp_wildcard}"  # UDP servers bound to the wildcard address; or "off", [443]
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An interface that leads to a provider. `gateways` has the kernel's gateways by family, "" if
    the link needs none. `routers` are neighbours that are routers, but not of a default route."""

    interface: str
    addresses: tuple[Address, ...] = ()
    gateways: tuple[tuple[Family, str], ...] = ()
    routers: tuple[str, ...] = ()

    @property
    def unknown(self) -> tuple[Family, ...]:
        """The families in which it has addresses but no known gateway."""
        known = {family for family, _ in self.gateways}
        known |= {family_of(router) for router in self.routers}
        return tuple(f for f in FAMILIES if f not in known and self.of(f))

    @property
    def shared(self) -> bool:
        """Whether it may be a LAN with several providers' routers, as it has several prefixes."""
        nets = {prefixes.network(f"{a.address}/{a.prefixlen}") for a in self.of(4)}
        return len(nets) > 1

    def of(self, family: Family) -> list[Address]:
        return [address for address in self.addresses if address.family == family]


def find_uplinks(facts: Facts) -> tuple[Candidate, ...]:
    """The candidates; the one with the current default route comes first."""
    candidates = [c for link in facts.links if (c := _candidate(facts, link))]
    return tuple(sorted(candidates, key=lambda candidate: _preference(facts, candidate.interface)))


def _candidate(facts: Facts, link: Link) -> Candidate | None:
    if link.loopback or not link.up:
        return None
    addresses = tuple(_usable_addresses(facts, link.name))
    gateways = tuple(_gateways(facts, link))
    routers: tuple[str, ...] = ()
    if not gateways:
        if link.point_to_point or not any(_may_have_router(a) for a in addresses):
            return None
        if any(is_private(a.address) for a in addresses):
            return None
        routers = tuple(
            n.address
            for n in facts.neighbours
            if n.dev == link.name and n.router and any(a.family == n.family for a in addresses)
        )[:1]
    return Candidate(link.name, addresses, gateways, routers)


def _usable_addresses(facts: Facts, interface: str) -> Iterator[Address]:
    """Addresses fit for the DNS: not link-local, temporary or deprecated."""
    for address in facts.addresses:
        temporary = address.deprecated or (address.family == 6 and address.secondary)
        if address.dev == interface and address.scope == 0 and not temporary:
            yield address


def _gateways(facts: Facts, link: Link) -> Iterator[tuple[Family, str]]:
    for family in FAMILIES:
        route = kernel_default(facts, link.name, family, _DEFAULTS)
        if route and (route.table == TABLE_MAIN or not link.point_to_point):
            yield family, next(hop.gateway for hop in route.hops if hop.dev == link.name)


def _may_have_router(address: Address) -> bool:
    return address.prefixlen < BITS[address.family]


def _preference(facts: Facts, interface: str) -> tuple[Any, ...]:
    """Sort key: the kernel's order of the default routes in main, IPv4 first."""
    metrics = []
    for family in FAMILIES:
        route = kernel_default(facts, interface, family, _DEFAULTS)
        metrics.append((route is None, route.metric if route else 0))
    return (*metrics, next(link.index for link in facts.links if link.name == interface))


# --- the text ------------------------------------------------------------------------------


def name(index: int) -> str:
    """isp-a, isp-b, … isp-z, isp-27, …"""
    return f"isp-{chr(ord('a') + index)}" if index < 26 else f"isp-{index + 1}"


def render(facts: Facts) -> str:
    """The config for this host's uplinks; "" if it has none."""
    candidates = find_uplinks(facts)
    if not candidates:
        return ""
    blocks = ["\n".join(_block(n, candidate)) for n, candidate in enumerate(candidates)]
    return "\n".join([_HEAD, *(f"{block}\n" for block in blocks)]) + _HOST.format(_DEFAULTS.host)


def _block(index: int, candidate: Candidate) -> Iterator[str]:
    yield f"[uplink.{name(index)}]"
    yield f"interface = {json.dumps(candidate.interface)}"
    yield f"# addresses = {json.dumps([a.address for a in candidate.addresses])}"
    if candidate.shared:
        yield "# several prefixes: if routers of several providers are on this LAN, configure an"
        yield "# uplink for each, with its addresses and gateways"
    gateways = (gateway for _, gateway in candidate.gateways if gateway)
    known = list(dict.fromkeys((*gateways, *candidate.routers)))
    missing = " and ".join(f"IPv{family}" for family in candidate.unknown)
    if candidate.routers:
        yield "# a router advertises itself here without a default route, hence this line"
        yield f"gateways = {json.dumps(known)}"
    elif known and not missing:
        yield f"# gateways = {json.dumps(known)}"
    elif not missing:
        yield "# the link needs no gateway"
    if missing:
        lacks = f"the uplink has no {missing}" if known else "the uplink is pending"
        yield f"# no router for {missing} is known here; until it is in gateways, {lacks}"
        yield "# (the line below is a guess, ask the provider)"
        guesses = [_first_of(candidate.of(family)[0]) for family in candidate.unknown]
        yield f"# gateways = {json.dumps([*known, *guesses])}"
    if not index:
        yield _RANK


def _first_of(address: Address) -> str:
    """A likely router: the first address of the prefix, or the second if the first is ours."""
    first, _ = prefixes.network(f"{address.address}/{address.prefixlen}")
    guess = prefixes.text(address.family, first + 1)
    return guess if guess != address.address else prefixes.text(address.family, first + 2)


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

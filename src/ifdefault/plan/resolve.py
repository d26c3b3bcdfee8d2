"""Resolve the uplinks: their addresses, gateways and MACs, from config and facts.

Rules: the config takes precedence, the kernel supplies the rest. An uplink that can't be used yet
is pending, with the reason, and doesn't affect the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config, Family, UplinkConfig
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.kernel import Address, Facts, Link, Uplink
from ifdefault.plan import numbers, prefixes
from ifdefault.plan.kernel_default import KernelDefault, KernelDefaults
from ifdefault.plan.own_addresses import OwnAddresses, own_addresses


def resolve(config: Config, facts: Facts, numbering: Mapping[str, int]) -> tuple[Uplink, ...]:
    """The uplinks in the order of the config; `numbering` has a number for each."""
    links = {link.name: link for link in facts.links}
    host = _Host(config, facts, KernelDefaults(config, facts), own_addresses(facts))
    uplinks = tuple(
        _resolve_one(setting, host, links.get(setting.interface), numbering[setting.name])
        for setting in config.uplinks
    )
    shared = shared_addresses(uplinks)
    return tuple(_with_mechanism(uplink, shared, config) for uplink in uplinks)


@dataclass(frozen=True, slots=True)
class _Host:
    config: Config
    facts: Facts
    defaults: KernelDefaults
    own: OwnAddresses


def ready(uplinks: tuple[Uplink, ...], family: Family | None = None) -> Iterator[Uplink]:
    """The usable uplinks, best first: by rank, then weight. Carrier isn't considered."""
    usable = [u for u in uplinks if not u.pending]
    for uplink in sorted(usable, key=lambda u: (u.rank, -u.weight)):
        if family is None or uplink.gateway(family) is not None:
            yield uplink


def find_uplink(uplinks: Sequence[Uplink], name: str) -> Uplink:
    """The uplink of this name. Raises HostError if there is none, or if it is pending."""
    by_name = {uplink.name: uplink for uplink in uplinks}
    if name not in by_name:
        raise HostError(Problem("", f'no uplink "{name}"', f"there are {', '.join(by_name)}"))
    if by_name[name].pending:
        raise HostError(Problem(f"uplink.{name}", f"is pending: {by_name[name].pending}"))
    return by_name[name]


def _resolve_one(setting: UplinkConfig, host: _Host, link: Link | None, number: int) -> Uplink:
    config = host.config.host
    blank = Uplink(
        name=setting.name,
        number=number,
        interface=setting.interface,
        table=numbers.table(config, number),
        arrival_mark=numbers.arrival_mark(config, number),
        outgoing_mark=numbers.outgoing_mark(config, number),
        mark_mask=config.mark_mask,
        rank=setting.rank,
        weight=setting.weight,
        routed=setting.routed,
    )
    if link is None:
        return replace(blank, pending=_why_no_link(setting, host.facts))
    if not link.up:
        return replace(blank, pending=f"interface {setting.interface} is down")
    addresses = _addresses(setting, host)
    gateways: list[tuple[Family, str]] = []
    sources: list[tuple[Family, str]] = []
    routers: tuple[str, ...] = ()
    for family in FAMILIES:
        default = _default(setting, host, addresses, family, blank.table)
        addresses = _with_source(addresses, setting, host, default)
        gateway = _gateway(setting, host, link, family, default)
        source = _source(addresses, setting, host, family, gateway, default)
        if gateway is not None and source is not None:
            gateways.append((family, gateway))
            sources.append((family, source))
            routers += default.routers if default else ()
    if not addresses:
        return replace(blank, pending=_why_no_address(setting))
    if not gateways:
        why = f"no gateway is known on {setting.interface}, set uplink.{setting.name}.gateways"
        return replace(blank, addresses=addresses, pending=why)
    return replace(
        blank,
        addresses=addresses,
        gateways=tuple(gateways),
        sources=tuple(sources),
        router_macs=_router_macs(setting, host.facts, gateways),
        routers=routers,
    )


def _why_no_link(setting: UplinkConfig, facts: Facts) -> str:
    for link in facts.links:
        if setting.interface in link.altnames:
            what = f"interface {setting.interface} is another name of {link.name}"
            return f'{what}, set uplink.{setting.name}.interface = "{link.name}"'
    return f"interface {setting.interface} doesn't exist"


def _why_no_address(setting: UplinkConfig) -> str:
    if setting.addresses:
        return f"the host has none of its addresses ({', '.join(setting.addresses)})"
    return f"no usable address on {setting.interface}"


def _addresses(setting: UplinkConfig, host: _Host) -> tuple[Address, ...]:
    """The uplink's own addresses: as configured, otherwise those of its interface.

    If several uplinks share an interface, an address belongs to the one whose gateway is in the
    address's prefix.
    """
    if setting.addresses:
        found = map(host.own.find, setting.addresses)
        return tuple(address for address in found if address)
    own = host.own.of_interface(setting.interface)
    others = _sharing(setting, host.config)
    if not others:
        return own
    claimed = {text for other in others for text in other.addresses}
    return tuple(
        a
        for a in own
        if a.address not in claimed
        and any(
            family_of(g) == a.family
            and prefixes.contains(a.family, f"{a.address}/{a.prefixlen}", g)
            for g in setting.gateways
        )
    )


def _sharing(setting: UplinkConfig, config: Config) -> list[UplinkConfig]:
    return [u for u in config.uplinks if u.interface == setting.interface and u != setting]


def _with_source(
    addresses: tuple[Address, ...],
    setting: UplinkConfig,
    host: _Host,
    default: KernelDefault | None,
) -> tuple[Address, ...]:
    """With the address that the kernel's default names as its source, wherever it is: on loopback,
    if the provider routes it over a transfer network."""
    if default is None or not default.route.src or setting.addresses:
        return addresses
    source = default.route.src
    elsewhere = {text for u in host.config.uplinks for text in u.addresses}
    if source in elsewhere or source in {a.address for a in addresses}:
        return addresses
    found = host.own.find(source)
    return (*addresses, found) if found else addresses


def _source(
    addresses: tuple[Address, ...],
    setting: UplinkConfig,
    host: _Host,
    family: Family,
    gateway: str | None,
    default: KernelDefault | None,
) -> str | None:
    """The `src` of this family's default: the first that is configured, otherwise the kernel's. If
    it names none, an address that is preferably not deprecated, not temporary, fit for the default,
    in the gateway's prefix, and the first as the kernel has them (IPv4) or the lowest (IPv6)."""
    order = host.own.order
    # the kernel refuses an IPv6 `src` that no interface has
    own = [a for a in addresses if a.family == family and (family == 4 or a.address in order)]
    if default and not setting.addresses and default.route.src in {a.address for a in own}:
        return default.route.src
    if not setting.addresses and family == 4:
        own.sort(key=lambda a: order.get(a.address, len(order)))

    def quality(address: Address) -> tuple[bool, ...]:
        prefix = default.route.from_prefix if default else ""
        unfit = bool(prefix) and not prefixes.contains(family, prefix, address.address)
        if setting.addresses:
            return address.deprecated, unfit
        same_family = bool(gateway) and family_of(gateway or "") == family
        net = f"{address.peer or address.address}/{address.prefixlen}"
        on_link = same_family and prefixes.contains(family, net, gateway or "")
        return address.deprecated, address.secondary, unfit, not on_link

    return min(own, key=quality).address if own else None


def _default(
    setting: UplinkConfig,
    host: _Host,
    addresses: tuple[Address, ...],
    family: Family,
    table: int,
) -> KernelDefault | None:
    """The kernel's default over the uplink's interface, unless the config has another gateway."""
    if _sharing(setting, host.config):
        return None
    own = [a for a in addresses if a.family == family]
    if not setting.addresses:
        own.sort(key=lambda a: (a.deprecated, a.secondary))
    found = host.defaults.find(setting.interface, family, [a.address for a in own], table)
    configured = next((g for g in setting.gateways if family_of(g) == family), None)
    return found if found and configured in (None, found.hop.gateway) else None


def _gateway(
    setting: UplinkConfig,
    host: _Host,
    link: Link,
    family: Family,
    default: KernelDefault | None,
) -> str | None:
    """The next hop: "" on a link that needs none, None if unknown."""
    for gateway in setting.gateways:
        if family_of(gateway) == family:
            return gateway
    if default:
        return default.hop.gateway
    peers = (a.peer for a in host.facts.addresses if a.dev == link.name and a.family == family)
    if link.point_to_point or any(peers):
        return ""
    if family == 4 and any(family_of(g) == 6 for g in setting.gateways):
        own = {a.family for a in host.facts.addresses if a.dev == link.name and a.scope < 253}
        return setting.gateways[0] if own == {4} else None  # IPv4 through an IPv6 next hop
    return None


def _router_macs(
    setting: UplinkConfig, facts: Facts, gateways: list[tuple[Family, str]]
) -> tuple[str, ...]:
    """The routers' MACs in the config and in the neighbour table."""
    own = {gateway for _, gateway in gateways}
    known = {
        n.mac for n in facts.neighbours if n.dev == setting.interface and n.address in own and n.mac
    }
    return tuple(sorted(known | set(setting.router_macs)))


def shared_addresses(uplinks: tuple[Uplink, ...]) -> dict[str, list[Uplink]]:
    """The addresses that several usable uplinks have, with those uplinks."""
    claims: dict[str, list[Uplink]] = {}
    for uplink in uplinks:
        if not uplink.pending:
            for address in uplink.addresses:
                claims.setdefault(address.address, []).append(uplink)
    return {address: claims[address] for address in claims if len(claims[address]) > 1}


def _with_mechanism(uplink: Uplink, shared: dict[str, list[Uplink]], config: Config) -> Uplink:
    """Pick the cheapest mechanism that works."""
    if uplink.pending:
        return uplink
    if config.host.return_path != "auto":
        why = "set by host.return_path"
        return replace(uplink, mechanism=config.host.return_path, why=why)
    for address, owners in shared.items():
        for other in owners:
            if uplink in owners and other != uplink:
                why = f"{address} is {other.name}'s too"
                return replace(uplink, mechanism="mark", why=why)
    return replace(uplink, why="its addresses are its own")

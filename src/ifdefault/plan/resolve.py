"""Resolve the uplinks: their addresses, gateways and MACs, from config and facts.

Rules: the config takes precedence, the kernel supplies the rest. An uplink that can't be used yet
is pending, with the reason, and doesn't affect the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config, Family, UplinkConfig
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.kernel import PROTOCOL, TABLE_MAIN, Address, Facts, Link, Route, Uplink
from ifdefault.plan import numbers, prefixes


def resolve(config: Config, facts: Facts, numbering: Mapping[str, int]) -> tuple[Uplink, ...]:
    """The uplinks in the order of the config; `numbering` has a number for each."""
    links = {link.name: link for link in facts.links}
    uplinks = tuple(
        _resolve_one(setting, config, facts, links.get(setting.interface), numbering[setting.name])
        for setting in config.uplinks
    )
    shared = shared_addresses(uplinks)
    return tuple(_with_mechanism(uplink, shared, config) for uplink in uplinks)


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


def _resolve_one(
    setting: UplinkConfig, config: Config, facts: Facts, link: Link | None, number: int
) -> Uplink:
    host = config.host
    blank = Uplink(
        name=setting.name,
        number=number,
        interface=setting.interface,
        table=numbers.table(host, number),
        arrival_mark=numbers.arrival_mark(host, number),
        outgoing_mark=numbers.outgoing_mark(host, number),
        mark_mask=host.mark_mask,
        rank=setting.rank,
        weight=setting.weight,
        routed=setting.routed,
    )
    if link is None:
        return replace(blank, pending=f"interface {setting.interface} doesn't exist")
    if not link.up:
        return replace(blank, pending=f"interface {setting.interface} is down")
    addresses = _addresses(setting, config, facts)
    if not addresses:
        return replace(blank, pending=_why_no_address(setting))
    gateways: list[tuple[Family, str]] = []
    sources: list[tuple[Family, str]] = []
    for family in FAMILIES:
        gateway = _gateway(setting, config, facts, link, family)
        source = _source(addresses, family, gateway)
        if gateway is not None and source is not None:
            gateways.append((family, gateway))
            sources.append((family, source))
    if not gateways:
        why = f"no gateway is known on {setting.interface}, set uplink.{setting.name}.gateways"
        return replace(blank, addresses=addresses, pending=why)
    return replace(
        blank,
        addresses=addresses,
        gateways=tuple(gateways),
        sources=tuple(sources),
        router_macs=_router_macs(setting, facts, gateways),
    )


def _why_no_address(setting: UplinkConfig) -> str:
    if setting.addresses:
        return f"the host has none of its addresses ({', '.join(setting.addresses)})"
    return f"no usable address on {setting.interface}"


def _addresses(setting: UplinkConfig, config: Config, facts: Facts) -> tuple[Address, ...]:
    """The uplink's own addresses: as configured, otherwise those of its interface.

    If several uplinks share an interface, an address belongs to the one whose gateway is in the
    address's prefix.
    """
    if setting.addresses:
        by_text = {a.address: a for a in facts.addresses if _usable(a)}
        return tuple(by_text[text] for text in setting.addresses if text in by_text)
    of_interface = [a for a in facts.addresses if a.dev == setting.interface and _usable(a)]
    of_interface.sort(key=lambda a: (a.family, prefixes.number(a.address)))
    others = [u for u in config.uplinks if u.interface == setting.interface and u != setting]
    if not others:
        return tuple(of_interface)
    claimed = {text for other in others for text in other.addresses}
    return tuple(
        a
        for a in of_interface
        if a.address not in claimed
        and any(
            family_of(g) == a.family
            and prefixes.contains(a.family, f"{a.address}/{a.prefixlen}", g)
            for g in setting.gateways
        )
    )


def _usable(address: Address) -> bool:
    return address.scope < 253 and not address.tentative


def _source(addresses: tuple[Address, ...], family: Family, gateway: str | None) -> str | None:
    """The `src` of this family's default: preferably not deprecated, not temporary, and in the
    gateway's prefix."""

    def quality(address: Address) -> tuple[bool, bool, bool]:
        same_family = bool(gateway) and family_of(gateway or "") == family
        on_link = same_family and prefixes.contains(
            family, f"{address.address}/{address.prefixlen}", gateway or ""
        )
        return address.deprecated, address.secondary, not on_link

    candidates = sorted((a for a in addresses if a.family == family), key=quality)
    return candidates[0].address if candidates else None


def _gateway(
    setting: UplinkConfig, config: Config, facts: Facts, link: Link, family: Family
) -> str | None:
    """The next hop: "" on a link that needs none, None if unknown."""
    for gateway in setting.gateways:
        if family_of(gateway) == family:
            return gateway
    shared = sum(u.interface == setting.interface for u in config.uplinks) > 1
    if not shared and (default := kernel_default(facts, setting.interface, family, config)):
        return next(hop.gateway for hop in default.hops if hop.dev == setting.interface)
    peers = (a.peer for a in facts.addresses if a.dev == link.name and a.family == family)
    if link.point_to_point or any(peers):
        return ""
    if family == 4 and any(family_of(g) == 6 for g in setting.gateways):
        own = {a.family for a in facts.addresses if a.dev == link.name and a.scope < 253}
        return setting.gateways[0] if own == {4} else None  # IPv4 through an IPv6 next hop
    return None


def kernel_default(facts: Facts, interface: str, family: Family, config: Config) -> Route | None:
    """The best foreign default route through an interface; main's take precedence."""
    own = numbers.own_tables(config.host)
    candidates = [
        route
        for route in facts.routes
        if route.dst == "default"
        and route.family == family
        and route.kind == "unicast"
        and not route.from_prefix
        and route.protocol != PROTOCOL
        and route.table not in own
        and any(hop.dev == interface for hop in route.hops)
    ]
    order = {"high": 0, "": 1, "low": 2}  # RFC 4191
    return min(
        candidates,
        key=lambda r: (r.table != TABLE_MAIN, r.metric, order[r.preference], r),
        default=None,
    )


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

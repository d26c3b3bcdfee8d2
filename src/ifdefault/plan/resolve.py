"""Which uplinks there are: config and facts together.

Rules: what the config says wins, the kernel supplies the rest. An uplink that can't be used yet
is pending, with the reason, and never stops the others.
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
    found = tuple(
        _resolve_one(wanted, config, facts, links.get(wanted.interface), numbering[wanted.name])
        for wanted in config.uplinks
    )
    shared = shared_addresses(found)
    return tuple(_with_mechanism(uplink, shared, config) for uplink in found)


def ready(uplinks: tuple[Uplink, ...], family: Family | None = None) -> Iterator[Uplink]:
    """The usable uplinks, best first: carrier is the caller's business, then rank and weight."""
    usable = [u for u in uplinks if not u.pending]
    for uplink in sorted(usable, key=lambda u: (u.rank, -u.weight)):
        if family is None or uplink.gateway(family) is not None:
            yield uplink


def find_uplink(uplinks: Sequence[Uplink], name: str) -> Uplink:
    """That of a name, if it can be used; HostError says what would be right."""
    found = {uplink.name: uplink for uplink in uplinks}
    if name not in found:
        raise HostError(Problem("", f'no uplink "{name}"', f"there are {', '.join(found)}"))
    if found[name].pending:
        raise HostError(Problem(f"uplink.{name}", f"is pending: {found[name].pending}"))
    return found[name]


def _resolve_one(
    wanted: UplinkConfig, config: Config, facts: Facts, link: Link | None, number: int
) -> Uplink:
    host = config.host
    blank = Uplink(
        name=wanted.name,
        number=number,
        interface=wanted.interface,
        table=numbers.table(host, number),
        arrival_mark=numbers.arrival_mark(host, number),
        outgoing_mark=numbers.outgoing_mark(host, number),
        mark_mask=host.mark_mask,
        rank=wanted.rank,
        weight=wanted.weight,
        routed=wanted.routed,
    )
    if link is None:
        return replace(blank, pending=f"interface {wanted.interface} doesn't exist")
    if not link.up:
        return replace(blank, pending=f"interface {wanted.interface} is down")
    addresses = _addresses(wanted, config, facts)
    if not addresses:
        return replace(blank, pending=_why_no_address(wanted))
    gateways: list[tuple[Family, str]] = []
    sources: list[tuple[Family, str]] = []
    for family in FAMILIES:
        gateway = _gateway(wanted, config, facts, link, family)
        source = _source(addresses, family, gateway)
        if gateway is not None and source is not None:
            gateways.append((family, gateway))
            sources.append((family, source))
    if not gateways:
        why = f"no gateway is known on {wanted.interface}, set uplink.{wanted.name}.gateways"
        return replace(blank, addresses=addresses, pending=why)
    return replace(
        blank,
        addresses=addresses,
        gateways=tuple(gateways),
        sources=tuple(sources),
        router_macs=_router_macs(wanted, facts, gateways),
    )


def _why_no_address(wanted: UplinkConfig) -> str:
    if wanted.addresses:
        return f"the host has none of its addresses ({', '.join(wanted.addresses)})"
    return f"no usable address on {wanted.interface}"


def _addresses(wanted: UplinkConfig, config: Config, facts: Facts) -> tuple[Address, ...]:
    """The uplink's own addresses: as configured, else those of its interface.

    Where several uplinks share an interface, an address belongs to the one whose gateway is in
    the address's prefix.
    """
    if wanted.addresses:
        by_text = {a.address: a for a in facts.addresses if _usable(a)}
        return tuple(by_text[text] for text in wanted.addresses if text in by_text)
    of_interface = [a for a in facts.addresses if a.dev == wanted.interface and _usable(a)]
    of_interface.sort(key=lambda a: (a.family, prefixes.number(a.address)))
    rivals = [u for u in config.uplinks if u.interface == wanted.interface and u != wanted]
    if not rivals:
        return tuple(of_interface)
    claimed = {text for rival in rivals for text in rival.addresses}
    return tuple(
        a
        for a in of_interface
        if a.address not in claimed
        and any(
            family_of(g) == a.family
            and prefixes.contains(a.family, f"{a.address}/{a.prefixlen}", g)
            for g in wanted.gateways
        )
    )


def _usable(address: Address) -> bool:
    return address.scope < 253 and not address.tentative


def _source(addresses: tuple[Address, ...], family: Family, gateway: str | None) -> str | None:
    """The `src` of this family's default: an address that stays, best in the gateway's prefix."""

    def quality(address: Address) -> tuple[bool, bool, bool]:
        same_family = bool(gateway) and family_of(gateway or "") == family
        near = same_family and prefixes.contains(
            family, f"{address.address}/{address.prefixlen}", gateway or ""
        )
        return address.deprecated, address.secondary, not near

    candidates = sorted((a for a in addresses if a.family == family), key=quality)
    return candidates[0].address if candidates else None


def _gateway(
    wanted: UplinkConfig, config: Config, facts: Facts, link: Link, family: Family
) -> str | None:
    """The next hop: "" on a link that needs none, None if none is known."""
    for gateway in wanted.gateways:
        if family_of(gateway) == family:
            return gateway
    shared = sum(u.interface == wanted.interface for u in config.uplinks) > 1
    if not shared and (default := kernel_default(facts, wanted.interface, family, config)):
        return next(hop.gateway for hop in default.hops if hop.dev == wanted.interface)
    far_ends = (a.peer for a in facts.addresses if a.dev == link.name and a.family == family)
    if link.point_to_point or any(far_ends):
        return ""
    if family == 4 and any(family_of(g) == 6 for g in wanted.gateways):
        own = {a.family for a in facts.addresses if a.dev == link.name and a.scope < 253}
        return wanted.gateways[0] if own == {4} else None  # IPv4 by way of an IPv6 next hop
    return None


def kernel_default(facts: Facts, interface: str, family: Family, config: Config) -> Route | None:
    """The best default through an interface that others put there, main's first."""
    own = numbers.own_tables(config.host)
    found = [
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
        found,
        key=lambda r: (r.table != TABLE_MAIN, r.metric, order[r.preference], r),
        default=None,
    )


def _router_macs(
    wanted: UplinkConfig, facts: Facts, gateways: list[tuple[Family, str]]
) -> tuple[str, ...]:
    """What the config says and what the neighbour table says, together."""
    own = {gateway for _, gateway in gateways}
    known = {
        n.mac for n in facts.neighbours if n.dev == wanted.interface and n.address in own and n.mac
    }
    return tuple(sorted(known | set(wanted.router_macs)))


def shared_addresses(uplinks: tuple[Uplink, ...]) -> dict[str, list[Uplink]]:
    """Each address that several usable uplinks claim, with all of them."""
    claims: dict[str, list[Uplink]] = {}
    for uplink in uplinks:
        if not uplink.pending:
            for address in uplink.addresses:
                claims.setdefault(address.address, []).append(uplink)
    return {address: claims[address] for address in claims if len(claims[address]) > 1}


def _with_mechanism(uplink: Uplink, shared: dict[str, list[Uplink]], config: Config) -> Uplink:
    """Pick the cheapest mechanism that is right."""
    if uplink.pending:
        return uplink
    if config.host.return_path != "auto":
        why = "host.return_path says so"
        return replace(uplink, mechanism=config.host.return_path, why=why)
    for address, owners in shared.items():
        for other in owners:
            if uplink in owners and other != uplink:
                why = f"{address} is {other.name}'s too, so only the arrival tells them apart"
                return replace(uplink, mechanism="mark", why=why)
    return replace(uplink, why="its addresses tell it apart")

"""The desired kernel state: routes, rules, sysctls, link groups and tables of all usable uplinks.

Rules: docs/architecture.md explains the order of the policy rules. Every default route of ours has
a `src`, so that the right address is used on shared LANs and with several prefixes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.errors import ConfigError, Problem
from ifdefault.model.health import Decision
from ifdefault.model.kernel import (
    FORWARD_TABLE,
    NFT_TABLE,
    PROTOCOL,
    TABLE_MAIN,
    Desired,
    Facts,
    Hop,
    Redirect,
    Route,
    Rule,
    Uplink,
)
from ifdefault.plan import (
    balance,
    connmark,
    forward_table,
    main_copy,
    mptcp,
    numbers,
    policy_rules,
    prefixes,
    resolve,
    ruleset,
    settings,
    tables,
    udp_wildcard,
)
from ifdefault.plan.kernel_default import KernelDefaults
from ifdefault.plan.lookup import predict

_IPV6_METRIC = 1024  # what the kernel gives an IPv6 route without one
_SCOPE_LINK = 253


@dataclass(frozen=True, slots=True)
class Plan:
    """The resolved uplinks, and the kernel state that they need."""

    uplinks: tuple[Uplink, ...]
    desired: Desired


def plan(
    config: Config,
    facts: Facts,
    numbering: Mapping[str, int],
    decision: Decision | None = None,
) -> Plan:
    """Resolve the uplinks and compute the desired state."""
    uplinks = resolve_uplinks(config, facts, numbering)
    return Plan(uplinks, desire(config, facts, uplinks, decision))


def resolve_uplinks(
    config: Config, facts: Facts, numbering: Mapping[str, int]
) -> tuple[Uplink, ...]:
    """The uplinks in the order of the config. Raises ConfigError if two uplinks have the same
    address and interface, and the MAC of one's router isn't known."""
    uplinks = resolve.resolve(config, facts, numbering)
    _require_distinct(uplinks)
    return uplinks


def desire(
    config: Config,
    facts: Facts,
    uplinks: tuple[Uplink, ...],
    decision: Decision | None = None,
    discovered: mptcp.Discovered = (),
) -> Desired:
    """The kernel state that the uplinks need. Without a decision, uplinks are ordered by carrier,
    rank and weight instead of by health. `discovered`: their public addresses."""
    usable = tuple(u for u in uplinks if not u.pending)
    copies = main_copy.routes(config.host, facts) if usable else ()
    routes = _distinct((*_routes(config, facts, usable), *copies))
    ports = {
        family: udp_wildcard.ports(config, facts, family)
        if udp_wildcard.is_relevant(usable, family)
        else ()
        for family in FAMILIES
    }
    decision = decision or _default_decision(config, facts, usable)
    rules = tuple(policy_rules.policy_rules(config, facts, usable, ports, decision))
    redirects = tuple(_redirects(config, facts, ports, routes, rules))
    hook = balance.desired_hook(config, usable, decision)
    forwarded = connmark.forwarded_flows(config, facts, usable, hook)
    host_forwards = bool(forwarded) or connmark.host_forwards(facts)
    needs = ruleset.Needs(config.host, usable, ports, redirects, host_forwards, forwarded)
    rules = tuple(policy_rules.needed(rules, needs))
    tables = {
        NFT_TABLE: ruleset.render(needs),
        FORWARD_TABLE: forward_table.render(config.forwards, usable, decision.servers_down),
    }
    return Desired(
        routes=routes,
        rules=rules,
        tables=tuple((name, text) for name, text in tables.items() if text),
        hook=hook,
        sysctls=tuple(settings.sysctls(facts, needs)),
        groups=tuple(_groups(config, facts)),
        endpoints=mptcp.endpoints(config, facts, usable, decision, discovered),
        mptcp_limits=mptcp.limits(config, facts),
        redirects=redirects,
        udp_ports=tuple((f, port) for f in needs.redirected_families() for port in ports[f]),
        udp_addresses=tuple(a for f in needs.redirected_families() for a in needs.addresses(f)),
        mark_mask=config.host.mark_mask,
    )


def _require_distinct(uplinks: tuple[Uplink, ...]) -> None:
    problems = []
    for address, owners in resolve.shared_addresses(uplinks).items():
        for uplink, other in itertools.permutations(owners, 2):
            if not uplink.router_macs and other.interface == uplink.interface:
                what = f"{address} is {other.name}'s too, and its router's MAC is unknown"
                remedy = "set router_macs, or check why its gateway doesn't answer ARP or ND"
                problems.append(Problem(f"uplink.{uplink.name}", what, remedy))
    if problems:
        raise ConfigError(*problems)


# --- routes -------------------------------------------------------------------------------


def _distinct(routes: Iterable[Route]) -> tuple[Route, ...]:
    """One route per table, destination and metric: the first in kernel order."""
    distinct: dict[tuple[int, int, str, int], Route] = {}
    for route in routes:
        distinct.setdefault((route.family, route.table, route.dst, route.metric), route)
    return tuple(sorted(distinct.values()))


def _routes(config: Config, facts: Facts, usable: tuple[Uplink, ...]) -> Iterator[Route]:
    defaults = KernelDefaults(config, facts)
    for uplink in usable:
        for family in FAMILIES:
            if uplink.gateway(family) is not None:
                default = _default(facts, uplink, family, defaults)
                yield default
                yield from _copies(facts, uplink, default, usable)


def _copies(
    facts: Facts, uplink: Uplink, default: Route, usable: tuple[Uplink, ...]
) -> Iterator[Route]:
    """Copies of main's non-default routes through the uplink: its own prefix, and specific ones.
    Without those that lead where its default leads: there may be thousands."""
    others = [u for u in usable if u.interface == uplink.interface and u != uplink]
    for route in tables.not_like(facts, uplink.interface, default):
        if _belongs(route, uplink) or not any(_belongs(route, other) for other in others):
            [hop, *_] = (hop for hop in route.hops if hop.dev == uplink.interface)
            yield replace(
                route,
                table=uplink.table,
                hops=(replace(hop, weight=1),),
                protocol=PROTOCOL,
                preference="",
            )


def _belongs(route: Route, uplink: Uplink) -> bool:
    """Whether a route on a shared LAN is this uplink's: its prefix, or through its gateway."""
    if route.hops[0].gateway:
        return route.hops[0].gateway == uplink.gateway(route.family)
    own = [a.address for a in uplink.addresses if a.family == route.family]
    return any(prefixes.contains(route.family, route.dst, address) for address in own)


def _default(facts: Facts, uplink: Uplink, family: Family, defaults: KernelDefaults) -> Route:
    gateway, source = uplink.gateway(family) or "", uplink.source(family) or ""
    default = defaults.find(uplink.interface, family, [source], uplink.table)
    return Route(
        family=family,
        table=uplink.table,
        dst="default",
        metric=_IPV6_METRIC if family == 6 else 0,
        hops=(Hop(uplink.interface, gateway, _onlink(facts, uplink, gateway)),),
        src=source,
        scope=0 if gateway or family == 6 else _SCOPE_LINK,
        protocol=PROTOCOL,
        metrics=default.route.metrics if default else (),
    )


def _onlink(facts: Facts, uplink: Uplink, gateway: str) -> bool:
    """Whether the route needs `onlink`, as no connected route contains the gateway."""
    if not gateway or (":" in gateway and prefixes.contains(6, "fe80::/10", gateway)):
        return False
    family = family_of(gateway)  # IPv4 may have an IPv6 next hop
    return not any(
        prefixes.contains(family, route.dst, gateway)
        for route in tables.on_link(facts, family, uplink.interface, TABLE_MAIN)
    )


def _default_decision(config: Config, facts: Facts, ready: tuple[Uplink, ...]) -> Decision:
    """A decision without health: by carrier, then metered ones last, then rank and weight."""
    carriers = {link.name for link in facts.links if link.carrier}
    metered = {uplink.name for uplink in config.uplinks if uplink.metered}
    ranked = sorted(
        resolve.ready(ready), key=lambda u: (u.interface not in carriers, u.name in metered)
    )
    names = tuple(u.name for u in ranked)
    idle = () if metered.issuperset(names[:1]) else tuple(n for n in names if n in metered)
    used = tuple(name for name in names if name not in idle)
    order, usable, reserve = (tuple((f, of) for f in FAMILIES) for of in (used + idle, used, idle))
    return Decision(order, usable, reserve=reserve)


# --- redirects, link groups ---------------------------------------------------------------


def _redirects(
    config: Config,
    facts: Facts,
    ports: dict[Family, tuple[int, ...]],
    routes: tuple[Route, ...],
    rules: tuple[Rule, ...],
) -> Iterator[Redirect]:
    groups = dict(_groups(config, facts))
    predicted = predict(facts, numbers.own_tables(config.host), routes, rules, groups)
    for family in FAMILIES:
        if ports[family]:
            port = ports[family][0]  # the rules are the same for all
            yield from udp_wildcard.redirects(predicted, port, family)


def _groups(config: Config, facts: Facts) -> Iterator[tuple[str, int]]:
    there = {link.name for link in facts.links}
    for interface in sorted({u.interface for u in config.uplinks}):
        if interface in there:
            yield interface, config.host.interface_group

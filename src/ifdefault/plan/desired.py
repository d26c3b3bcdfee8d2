"""The desired kernel state: routes, rules, sysctls, link groups and tables of all usable uplinks.

Rules: docs/architecture.md explains the order of the policy rules. Every default route of ours has
a `src`, so that the right address is used on shared LANs and with several prefixes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ifdefault.model.address import BITS, family_of
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.errors import ConfigError, Problem
from ifdefault.model.health import Decision
from ifdefault.model.kernel import (
    FORWARD_TABLE,
    NFT_TABLE,
    PROTOCOL,
    TABLE_DEFAULT,
    TABLE_LOCAL,
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
    numbers,
    outgoing_rules,
    prefixes,
    resolve,
    ruleset,
    settings,
    udp_wildcard,
)
from ifdefault.plan.conflicts import first_priority
from ifdefault.plan.kernel_default import KernelDefaults

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
) -> Desired:
    """The kernel state that the uplinks need. Without a decision, uplinks are ordered by carrier,
    rank and weight instead of by health."""
    usable = tuple(u for u in uplinks if not u.pending)
    routes = _distinct(_routes(config, facts, usable))
    ports = {
        family: udp_wildcard.ports(config, facts, family)
        if udp_wildcard.is_relevant(usable, family)
        else ()
        for family in FAMILIES
    }
    decision = decision or _default_decision(facts, usable)
    rules = tuple(_rules(config, facts, usable, ports, decision))
    redirects = tuple(_redirects(config, facts, ports, routes, rules))
    hook = balance.desired_hook(config, usable, decision)
    forwarded = connmark.forwarded_flows(config, facts, usable, hook)
    host_forwards = bool(forwarded) or connmark.host_forwards(facts)
    needs = ruleset.Needs(config.host, usable, ports, redirects, host_forwards, forwarded)
    rules = tuple(rule for rule in rules if _is_needed(rule, needs))
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
    specific = [
        route
        for route in facts.routes
        if route.table == TABLE_MAIN
        and route.dst != "default"
        and route.kind == "unicast"
        and not route.from_prefix
    ]
    defaults = KernelDefaults(config, facts)
    for uplink in usable:
        for family in FAMILIES:
            if uplink.gateway(family) is not None:
                yield from _copies(specific, uplink, family, usable)
                yield _default(facts, uplink, family, defaults)


def _copies(
    specific: list[Route], uplink: Uplink, family: Family, usable: tuple[Uplink, ...]
) -> Iterator[Route]:
    """Copies of main's non-default routes through the uplink: its own prefix, and specific ones."""
    others = [u for u in usable if u.interface == uplink.interface and u != uplink]
    for route in specific:
        hops = [hop for hop in route.hops if hop.dev == uplink.interface]
        if route.family != family or not hops:
            continue
        if _belongs(route, uplink) or not any(_belongs(route, other) for other in others):
            yield replace(
                route,
                table=uplink.table,
                hops=(replace(hops[0], weight=1),),
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
        route.family == family
        and route.table == TABLE_MAIN
        and route.dst != "default"
        and any(hop.dev == uplink.interface and not hop.gateway for hop in route.hops)
        and prefixes.contains(family, route.dst, gateway)
        for route in facts.routes
    )


# --- rules --------------------------------------------------------------------------------


def _rules(
    config: Config,
    facts: Facts,
    usable: tuple[Uplink, ...],
    udp_ports: dict[Family, tuple[int, ...]],
    decision: Decision,
) -> Iterator[Rule]:
    for family in FAMILIES:
        order = {name: index for index, name in enumerate(decision.ranking(family))}
        ready = resolve.ready(usable, family)  # uplinks missing from the decision come last
        uplinks = sorted(ready, key=lambda u: order.get(u.name, len(order)))
        if uplinks:
            yield from _return_path(config, facts, uplinks, family)
            yield from _outgoing(config, uplinks, family, udp_ports[family], decision)
        if any(rule.family == family for rule in facts.rules):
            yield from _unreachable_cgroups(config, facts, family)


def _return_path(
    config: Config, facts: Facts, uplinks: list[Uplink], family: Family
) -> Iterator[Rule]:
    base = first_priority(config, facts)
    rule = functools.partial(Rule, family=family, protocol=PROTOCOL)
    for interface in sorted({u.interface for u in uplinks}):
        priority, end = base + numbers.FROM_UPLINK, base + numbers.END
        yield rule(priority=priority, action="goto", goto=end, iif=interface)
    local = functools.partial(
        rule,
        suppress_prefixlength=numbers.SHORTEST_LOCAL[family],
        suppress_ifgroup=config.host.interface_group,
    )
    # packets with a mark of the VPN's are the tunnel's own, which mustn't be routed into it
    foreign_bits = ~config.host.mark_mask & 0xFFFFFFFF
    for table in _vpn_tables(facts, family):
        yield local(priority=base + numbers.VPN_ROUTES, table=table, mask=foreign_bits)
    yield local(priority=base + numbers.LOCAL_ROUTES, table=TABLE_MAIN)
    for u in uplinks:
        priority = base + numbers.ARRIVAL_MARK
        yield rule(priority=priority, table=u.table, mark=u.arrival_mark, mask=u.mark_mask)
    # an address or interface that several uplinks share leads to the best of them
    owners = {a.address: u for u in reversed(uplinks) for a in u.addresses if a.family == family}
    for address, u in sorted(owners.items(), key=lambda item: item[1].number):
        src = f"{address}/{BITS[family]}"
        yield rule(priority=base + numbers.SOURCE, table=u.table, src=src)
        yield rule(priority=base + numbers.SOURCE_END, action="unreachable", src=src)
    for u in uplinks:
        for src in (prefix for prefix in u.routed if family_of(prefix) == family):
            yield rule(priority=base + numbers.ROUTED, table=u.table, src=src)
            yield rule(priority=base + numbers.SOURCE_END, action="unreachable", src=src)
    for interface, u in sorted({u.interface: u for u in reversed(uplinks)}.items()):
        yield rule(priority=base + numbers.DEVICE, table=u.table, oif=interface)
    yield rule(priority=base + numbers.END, action="nop")


def _is_needed(rule: Rule, needs: ruleset.Needs) -> bool:
    """Rules for arrival marks are needed only with arrival marks, and rules that reject packets
    whose uplink has no route only where the source check doesn't drop them and isn't switched off.
    Every rule costs every lookup."""
    if rule.action == "goto":  # packets of tracked forwarded flows arrive without a mark
        return needs.marks_arrival()
    if rule.mark in {u.arrival_mark for u in needs.uplinks}:
        return needs.marks_arrival() or needs.forwarded is not None
    if rule.action == "unreachable" and rule.src:
        return needs.host.source_check == "auto" and not needs.checks_sources()
    return True


def _vpn_tables(facts: Facts, family: Family) -> list[int]:
    """Foreign tables with specific routes that are looked up for every packet (Tailscale's 52):
    replies to a VPN client that connected to an uplink's address must go through the VPN."""
    specific = {
        route.table
        for route in facts.routes
        if route.family == family
        and route.protocol != PROTOCOL
        and prefixes.network(route.dst)[1] > numbers.SHORTEST_LOCAL[family]
    }
    every_packet = {
        rule.table
        for rule in facts.rules
        if rule.action == "lookup"
        and rule.protocol != PROTOCOL
        and Rule(family, rule.priority, table=rule.table, protocol=rule.protocol) == rule
    }
    return sorted(every_packet & specific - {TABLE_MAIN, TABLE_LOCAL, TABLE_DEFAULT})


def _outgoing(
    config: Config,
    uplinks: list[Uplink],
    family: Family,
    udp_ports: tuple[int, ...],
    decision: Decision,
) -> Iterator[Rule]:
    """The last rule leads to the primary uplink's own table: a path MTU is learned for the route to
    the uplink's source, and must apply to sockets without a source, too. The rule matches the
    absence of an outgoing mark, since the kernel ignores marks when a rule without one is deleted.

    Wildcard UDP servers reply from the same uplink's address while the primary changes, as long as
    that uplink is usable: the redirects can't be replaced at the very moment at which the kernel
    changes the source."""
    blank = Rule(family=family, priority=numbers.OUTGOING, protocol=PROTOCOL)
    by_number = sorted(uplinks, key=lambda u: u.number)
    for uplink in by_number:
        yield replace(blank, table=uplink.table, mark=uplink.outgoing_mark, mask=uplink.mark_mask)
    usable = decision.usable_in(family)
    stable = next((u for u in by_number if u.name in usable), by_number[0])
    udp = replace(blank, table=stable.table, ip_proto=udp_wildcard.IP_PROTO)
    udp_servers = [replace(udp, sport=(port, port)) for port in udp_ports]
    config_rules = outgoing_rules.rules(config, uplinks, decision, family)
    if config_rules:  # a rule for a destination port mustn't select replies to that port
        yield from udp_servers
    yield from config_rules
    yield replace(blank, table=TABLE_MAIN, suppress_prefixlength=0)
    if not config_rules:
        yield from udp_servers
    for prefix in sorted({p for u in uplinks for p in u.routed if family_of(p) == family}):
        # packets to unused addresses of the prefix would loop to the provider (RFC 7084, 4.2)
        yield replace(blank, action="unreachable", dst=prefix)
    no_outgoing_mark = numbers.outgoing_mark(config.host, 0)
    yield replace(blank, table=uplinks[0].table, mask=no_outgoing_mark)


def _unreachable_cgroups(config: Config, facts: Facts, family: Family) -> Iterator[Rule]:
    """Packets of a cgroup whose uplinks lack the family are rejected, instead of using main's
    default. The rule precedes the source rules: if IPv6 finds no route, the kernel picks a source
    and looks up again."""
    if any(rule.cgroups for rule in config.outgoing.rules):
        priority = first_priority(config, facts) + numbers.NOWHERE
        mark, mask = numbers.outgoing_mark(config.host, 0), config.host.mark_mask
        yield Rule(family, priority, "unreachable", mark=mark, mask=mask, protocol=PROTOCOL)


def _default_decision(facts: Facts, usable: tuple[Uplink, ...]) -> Decision:
    """A decision without health: by carrier, then rank and weight."""
    carriers = {link.name for link in facts.links if link.carrier}
    order = sorted(resolve.ready(usable), key=lambda u: u.interface not in carriers)
    names = tuple(u.name for u in order)
    return Decision(tuple((f, names) for f in FAMILIES), tuple((f, names) for f in FAMILIES))


# --- redirects, link groups ---------------------------------------------------------------


def _redirects(
    config: Config,
    facts: Facts,
    ports: dict[Family, tuple[int, ...]],
    routes: tuple[Route, ...],
    rules: tuple[Rule, ...],
) -> Iterator[Redirect]:
    own = numbers.own_tables(config.host)
    foreign_routes = tuple(r for r in facts.routes if r.table not in own)
    foreign_rules = tuple(r for r in facts.rules if r.protocol != PROTOCOL)
    with_groups = replace(
        facts,
        links=tuple(
            replace(link, group=dict(_groups(config, facts)).get(link.name, link.group))
            for link in facts.links
        ),
    )
    for family in FAMILIES:
        if ports[family]:
            # sorted() is stable: our rules follow foreign rules of the same priority
            merged = sorted((*foreign_rules, *rules), key=lambda r: r.priority)
            port = ports[family][0]  # the rules are the same for all
            yield from udp_wildcard.redirects(
                with_groups, port, family, foreign_routes + routes, tuple(merged)
            )


def _groups(config: Config, facts: Facts) -> Iterator[tuple[str, int]]:
    there = {link.name for link in facts.links}
    for interface in sorted({u.interface for u in config.uplinks}):
        if interface in there:
            yield interface, config.host.interface_group

"""What should be in the kernel: routes, rules, sysctls and link groups of all usable uplinks.

Rules: the order of the policy rules is in docs/architecture.md, with what breaks otherwise. Every
default of ours names its source, so that a shared LAN or a second prefix gets the right one.
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

_IPV6_METRIC = 1024  # what the kernel gives an IPv6 route without one
_SCOPE_LINK = 253


@dataclass(frozen=True, slots=True)
class Plan:
    """The uplinks as resolved, and what they need."""

    uplinks: tuple[Uplink, ...]
    desired: Desired


def plan(
    config: Config,
    facts: Facts,
    numbering: Mapping[str, int],
    decision: Decision | None = None,
) -> Plan:
    """Resolve and desire."""
    uplinks = resolve_uplinks(config, facts, numbering)
    return Plan(uplinks, desire(config, facts, uplinks, decision))


def resolve_uplinks(
    config: Config, facts: Facts, numbering: Mapping[str, int]
) -> tuple[Uplink, ...]:
    """ConfigError if two uplinks claim one address and nothing can tell them apart."""
    uplinks = resolve.resolve(config, facts, numbering)
    _refuse_indistinct(uplinks)
    return uplinks


def desire(
    config: Config,
    facts: Facts,
    uplinks: tuple[Uplink, ...],
    decision: Decision | None = None,
) -> Desired:
    """What uplinks need in the kernel. Without a decision, which takes health, the best uplink is
    that of carrier, rank and weight."""
    usable = tuple(u for u in uplinks if not u.pending)
    routes = _distinct(_routes(config, facts, usable))
    ports = {
        family: udp_wildcard.ports(config, facts, family)
        if udp_wildcard.concerns(usable, family)
        else ()
        for family in FAMILIES
    }
    decision = decision or _undecided(facts, usable)
    rules = tuple(_rules(config, facts, usable, ports, decision))
    redirects = tuple(_redirects(config, facts, ports, routes, rules))
    on_connect = balance.wanted(config, usable, decision)
    passing = connmark.passing(config, facts, usable, on_connect)
    forwards = bool(passing) or connmark.forwards(facts)
    needs = ruleset.Needs(config.host, usable, ports, redirects, forwards, passing)
    rules = tuple(rule for rule in rules if _is_needed(rule, needs))
    tables = {
        NFT_TABLE: ruleset.render(needs),
        FORWARD_TABLE: forward_table.render(config.forwards, usable, decision.servers_down),
    }
    return Desired(
        routes=routes,
        rules=rules,
        tables=tuple((name, text) for name, text in tables.items() if text),
        hook=on_connect,
        sysctls=tuple(settings.sysctls(facts, needs)),
        groups=tuple(_groups(config, facts)),
        redirects=redirects,
        udp_ports=tuple((f, port) for f in needs.redirecting() for port in ports[f]),
        udp_addresses=tuple(a for f in needs.redirecting() for a in needs.own(f)),
        mark_mask=config.host.mark_mask,
    )


def _refuse_indistinct(uplinks: tuple[Uplink, ...]) -> None:
    problems = []
    for address, owners in resolve.shared_addresses(uplinks).items():
        for uplink, other in itertools.permutations(owners, 2):
            if not uplink.router_macs and other.interface == uplink.interface:
                what = f"{address} is {other.name}'s too, and no MAC of its router is known"
                remedy = "set router_macs, or see why its gateway doesn't answer ARP or ND"
                problems.append(Problem(f"uplink.{uplink.name}", what, remedy))
    if problems:
        raise ConfigError(*problems)


# --- routes -------------------------------------------------------------------------------


def _distinct(routes: Iterable[Route]) -> tuple[Route, ...]:
    """A table holds one route of ours for a destination and metric: the kernel's first."""
    found: dict[tuple[int, int, str, int], Route] = {}
    for route in routes:
        found.setdefault((route.family, route.table, route.dst, route.metric), route)
    return tuple(sorted(found.values()))


def _routes(config: Config, facts: Facts, usable: tuple[Uplink, ...]) -> Iterator[Route]:
    specific = [
        route
        for route in facts.routes
        if route.table == TABLE_MAIN
        and route.dst != "default"
        and route.kind == "unicast"
        and not route.from_prefix
    ]
    for uplink in usable:
        for family in FAMILIES:
            if uplink.gateway(family) is not None:
                yield from _copies(specific, uplink, family, usable)
                yield _default(config, facts, uplink, family)


def _copies(
    specific: list[Route], uplink: Uplink, family: Family, usable: tuple[Uplink, ...]
) -> Iterator[Route]:
    """Main's routes through the uplink but for defaults: its own prefix, and specific ones."""
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
    """Whether a route of a shared LAN is this uplink's: its prefix, or by way of its gateway."""
    if route.hops[0].gateway:
        return route.hops[0].gateway == uplink.gateway(route.family)
    own = [a.address for a in uplink.addresses if a.family == route.family]
    return any(prefixes.contains(route.family, route.dst, address) for address in own)


def _default(config: Config, facts: Facts, uplink: Uplink, family: Family) -> Route:
    gateway, source = uplink.gateway(family) or "", uplink.source(family) or ""
    kernels = resolve.kernel_default(facts, uplink.interface, family, config)
    return Route(
        family=family,
        table=uplink.table,
        dst="default",
        metric=_IPV6_METRIC if family == 6 else 0,
        hops=(Hop(uplink.interface, gateway, _onlink(facts, uplink, gateway)),),
        src=source,
        scope=0 if gateway or family == 6 else _SCOPE_LINK,
        protocol=PROTOCOL,
        metrics=kernels.metrics if kernels else (),
    )


def _onlink(facts: Facts, uplink: Uplink, gateway: str) -> bool:
    """Whether the kernel must be told that the gateway is on the link, since no route says so."""
    if not gateway or (":" in gateway and prefixes.contains(6, "fe80::/10", gateway)):
        return False
    family = family_of(gateway)  # IPv4 may go by an IPv6 next hop
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
    naive: dict[Family, tuple[int, ...]],
    decision: Decision,
) -> Iterator[Rule]:
    for family in FAMILIES:
        order = {name: place for place, name in enumerate(decision.ranking(family))}
        ready = resolve.ready(usable, family)  # those that the decision doesn't know come last
        uplinks = sorted(ready, key=lambda u: order.get(u.name, len(order)))
        if uplinks:
            yield from _return_path(config, facts, uplinks, family)
            yield from _outgoing(config, uplinks, family, naive[family], decision)
        if any(rule.family == family for rule in facts.rules):
            yield from _no_other_way(config, facts, family)


def _return_path(
    config: Config, facts: Facts, uplinks: list[Uplink], family: Family
) -> Iterator[Rule]:
    base = first_priority(config, facts)
    rule = functools.partial(Rule, family=family, protocol=PROTOCOL)
    for interface in sorted({u.interface for u in uplinks}):
        priority, landing = base + numbers.FROM_UPLINK, base + numbers.END
        yield rule(priority=priority, action="goto", goto=landing, iif=interface)
    local = functools.partial(
        rule,
        suppress_prefixlength=numbers.SHORTEST_LOCAL[family],
        suppress_ifgroup=config.host.interface_group,
    )
    # a packet with a mark of the VPN's own is its tunnel, and mustn't enter itself
    others = ~config.host.mark_mask & 0xFFFFFFFF
    for table in _vpn_tables(facts, family):
        yield local(priority=base + numbers.VPN_ROUTES, table=table, mask=others)
    yield local(priority=base + numbers.LOCAL_ROUTES, table=TABLE_MAIN)
    for u in uplinks:
        priority = base + numbers.ARRIVAL_MARK
        yield rule(priority=priority, table=u.table, mark=u.arrival_mark, mask=u.mark_mask)
    # an address or interface that several uplinks share goes to the best of them, as decided
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
    """Without arrival marks nothing looks for them; with the source check, or where it is switched
    off, no source ends at its own uplink. Every rule costs every lookup."""
    if rule.action == "goto":  # what is followed gets no mark where it comes in
        return needs.marking()
    if rule.mark in {u.arrival_mark for u in needs.uplinks}:
        return needs.marking() or needs.passing is not None
    if rule.action == "unreachable" and rule.src:
        return needs.host.source_check == "auto" and not needs.metering()
    return True


def _vpn_tables(facts: Facts, family: Family) -> list[int]:
    """Foreign tables that every packet looks up and that hold specific routes (Tailscale's 52):
    a VPN's client that talks to an uplink's address must be answered through the VPN."""
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
    naive: tuple[int, ...],
    decision: Decision,
) -> Iterator[Rule]:
    """The normal default is the carrier's own table: a path's MTU is learned for the route that
    leads back to its source, and must hold for sockets that have no source yet. It asks for the
    absence of a choice, since the kernel takes a rule without a mark for any when it deletes.

    Naive UDP servers keep to one uplink's address while the default moves, as long as that uplink
    is usable: no flow of theirs can be redirected anew at the very moment at which the kernel
    answers from elsewhere."""
    blank = Rule(family=family, priority=numbers.OUTGOING, protocol=PROTOCOL)
    by_number = sorted(uplinks, key=lambda u: u.number)
    for uplink in by_number:
        yield replace(blank, table=uplink.table, mark=uplink.outgoing_mark, mask=uplink.mark_mask)
    usable = decision.usable_in(family)
    steady = next((u for u in by_number if u.name in usable), by_number[0])
    udp = replace(blank, table=steady.table, ip_proto=udp_wildcard.IP_PROTO)
    servers = [replace(udp, sport=(port, port)) for port in naive]
    owned = outgoing_rules.rules(config, uplinks, decision, family)
    if owned:  # which a server's answer to a port that one of them selects must not meet
        yield from servers
    yield from owned
    yield replace(blank, table=TABLE_MAIN, suppress_prefixlength=0)
    if not owned:
        yield from servers
    for prefix in sorted({p for u in uplinks for p in u.routed if family_of(p) == family}):
        # what nobody here has would go back to the provider, and come again (RFC 7084, 4.2)
        yield replace(blank, action="unreachable", dst=prefix)
    undecided = numbers.outgoing_mark(config.host, 0)
    yield replace(blank, table=uplinks[0].table, mask=undecided)


def _no_other_way(config: Config, facts: Facts, family: Family) -> Iterator[Rule]:
    """What a control group's uplink has no way for takes none, instead of main's default. It stands
    before the source rules: where IPv6 finds no route it picks a source and looks again."""
    if any(rule.cgroups for rule in config.outgoing.rules):
        priority = first_priority(config, facts) + numbers.NOWHERE
        mark, mask = numbers.outgoing_mark(config.host, 0), config.host.mark_mask
        yield Rule(family, priority, "unreachable", mark=mark, mask=mask, protocol=PROTOCOL)


def _undecided(facts: Facts, usable: tuple[Uplink, ...]) -> Decision:
    """What can be decided without a look at the uplinks' health: carrier, then rank and weight."""
    carriers = {link.name for link in facts.links if link.carrier}
    order = sorted(resolve.ready(usable), key=lambda u: u.interface not in carriers)
    names = tuple(u.name for u in order)
    return Decision(tuple((f, names) for f in FAMILIES), tuple((f, names) for f in FAMILIES))


# --- the rest -----------------------------------------------------------------------------


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
    grouped = replace(
        facts,
        links=tuple(
            replace(link, group=dict(_groups(config, facts)).get(link.name, link.group))
            for link in facts.links
        ),
    )
    for family in FAMILIES:
        if ports[family]:
            # sorted() is stable: ours stand behind foreign rules of the same priority
            merged = sorted((*foreign_rules, *rules), key=lambda r: r.priority)
            port = ports[family][0]  # the rules are the same for each
            yield from udp_wildcard.redirects(
                grouped, port, family, foreign_routes + routes, tuple(merged)
            )


def _groups(config: Config, facts: Facts) -> Iterator[tuple[str, int]]:
    there = {link.name for link in facts.links}
    for interface in sorted({u.interface for u in config.uplinks}):
        if interface in there:
            yield interface, config.host.interface_group

"""The policy rules: the return path, and what new outgoing connections use.

Rules: docs/architecture.md explains their order.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.health import Decision
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_DEFAULT,
    TABLE_LOCAL,
    TABLE_MAIN,
    Facts,
    Rule,
    Uplink,
)
from ifdefault.plan import (
    main_copy,
    numbers,
    outgoing_rules,
    prefixes,
    resolve,
    ruleset,
    tables,
    udp_wildcard,
)
from ifdefault.plan.rule_block import first_priority, local_precedes


def policy_rules(
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
            yield from _outgoing(config, facts, uplinks, family, udp_ports[family], decision)
        if any(rule.family == family for rule in facts.rules):
            yield from _unreachable_cgroups(config, facts, family)


def _return_path(
    config: Config, facts: Facts, uplinks: list[Uplink], family: Family
) -> Iterator[Rule]:
    base = first_priority(config, facts)
    rule = functools.partial(Rule, family=family, protocol=PROTOCOL)
    if not local_precedes(facts, family, base):
        yield rule(priority=base + numbers.OWN_ADDRESSES, table=TABLE_LOCAL)
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
        to_vpn = local(priority=base + numbers.VPN_ROUTES, table=table, mask=foreign_bits)
        last_resort = main_copy.has_last_resort(facts, family, table)
        for dst in _specific(facts, family, table) if last_resort else [""]:
            yield replace(to_vpn, dst=dst)
    main = main_copy.table(config.host, facts, family)
    yield local(priority=base + numbers.LOCAL_ROUTES, table=main)
    for u in uplinks:
        priority = base + numbers.ARRIVAL_MARK
        yield rule(priority=priority, table=u.table, mark=u.arrival_mark, mask=u.mark_mask)
    # an address or interface that several uplinks share leads to the best of them
    owners = {a.address: u for u in reversed(uplinks) for a in u.addresses if a.family == family}
    for u in sorted(uplinks, key=lambda u: u.number):
        own = (address for address, owner in owners.items() if owner is u)
        for src in prefixes.merged(family, own):
            yield rule(priority=base + numbers.SOURCE, table=u.table, src=src)
            yield rule(priority=base + numbers.SOURCE_END, action="unreachable", src=src)
    for u in uplinks:
        for src in (prefix for prefix in u.routed if family_of(prefix) == family):
            yield rule(priority=base + numbers.ROUTED, table=u.table, src=src)
            yield rule(priority=base + numbers.SOURCE_END, action="unreachable", src=src)
    for interface, u in sorted({u.interface: u for u in reversed(uplinks)}.items()):
        yield rule(priority=base + numbers.DEVICE, table=u.table, oif=interface)
    yield rule(priority=base + numbers.END, action="nop")


def needed(rules: Iterable[Rule], needs: ruleset.Needs) -> Iterator[Rule]:
    """Rules for arrival marks are needed only with arrival marks, and rules that reject packets
    whose uplink has no route only where the source check doesn't drop them and isn't switched off.
    Every rule costs every lookup."""
    marks_arrival, arrival_marks = needs.marks_arrival(), {u.arrival_mark for u in needs.uplinks}
    rejects = needs.host.source_check == "auto" and not needs.checks_sources()
    for rule in rules:
        if rule.action == "goto":  # packets of tracked forwarded flows arrive without a mark
            is_needed = marks_arrival
        elif rule.mark in arrival_marks:
            is_needed = marks_arrival or needs.forwarded is not None
        else:
            is_needed = rejects or not (rule.action == "unreachable" and rule.src)
        if is_needed:
            yield rule


def _vpn_tables(facts: Facts, family: Family) -> list[int]:
    """Foreign tables with specific routes that are looked up for every packet (Tailscale's 52):
    replies to a VPN client that connected to an uplink's address must go through the VPN."""
    every_packet = {
        rule.table
        for rule in facts.rules
        if rule.action == "lookup"
        and rule.protocol != PROTOCOL
        and not (rule.src or rule.dst or rule.mask or rule.iif)
        and Rule(family, rule.priority, table=rule.table, protocol=rule.protocol) == rule
    }
    candidates = every_packet - {TABLE_MAIN, TABLE_LOCAL, TABLE_DEFAULT}
    return sorted(
        table
        for table in candidates
        if _specific(facts, family, table)
        and any(route.protocol != PROTOCOL for route in tables.of(facts, family, table))
    )


def _specific(facts: Facts, family: Family, table: int) -> list[str]:
    """The prefixes of a table's routes that aren't parts of a default."""
    by_length = tables.index(tables.of(facts, family, table))
    shortest = numbers.SHORTEST_LOCAL[family]
    specific = (by for length, by in by_length.items() if length > shortest)
    return sorted(routes[0].dst for by in specific for routes in by.values())


def _outgoing(
    config: Config,
    facts: Facts,
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
    detours = outgoing_rules.detours(config.host, facts, uplinks, decision, family)
    config_rules = outgoing_rules.rules(config, uplinks, decision, family)
    config_rules = tuple(dict.fromkeys((*config_rules, *detours)))
    if config_rules:  # a rule for a destination port mustn't select replies to that port
        yield from udp_servers
    yield from config_rules
    main = main_copy.table(config.host, facts, family)
    yield replace(blank, table=main, suppress_prefixlength=0)
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

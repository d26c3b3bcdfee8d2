"""Wildcard UDP servers: the address from which the kernel would send their replies.

A UDP socket bound to the wildcard address that doesn't use IP_PKTINFO replies from the source
address of the route to the client, whichever address received the packet. Packets to any other
address of the host are therefore redirected (DNAT) to that one, and conntrack restores the original
address in the reply.

Rules: the source address is computed by the same lookup that `explain` uses, for every possible
client: the address space is split at the borders of all routes, and each part is looked up once.
Routes and rules that refuse packets are left out: it doesn't matter where a client that can't be
answered is redirected to, and a list of bans would split the address space at each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ifdefault.model.address import BITS
from ifdefault.model.config import Config, Family
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import Facts, Redirect, Route, Rule, Uplink
from ifdefault.model.many import Many
from ifdefault.plan import prefixes, tables
from ifdefault.plan.lookup import REFUSALS, Fib, matches

# DHCP (67, 68, 546, 547), NetBIOS, SSDP, mDNS and LLMNR are link-local protocols
_LINK_PROTOCOLS = {67, 68, 546, 547, 137, 138, 1900, 5353, 5355}
IP_PROTO = 17  # UDP's
_PORT_RANGE = "net/ipv4/ip_local_port_range"


def ports(config: Config, facts: Facts, family: Family) -> tuple[int, ...]:
    """The ports to redirect. "auto" selects every UDP socket bound to the wildcard address, except
    for link-local protocols and clients' ports (ip_local_port_range)."""
    setting = config.host.udp_wildcard
    if setting == "off":
        return ()
    if setting != "auto":
        return setting
    clients = client_ports(facts)
    return tuple(
        port
        for of_family, port in facts.wildcard_udp
        if of_family == family and port not in _LINK_PROTOCOLS and port not in clients
    )


def client_ports(facts: Facts) -> range:
    """The ports that the kernel assigns to sockets without one (ip-sysctl.rst,
    ip_local_port_range)."""
    low, _, high = dict(facts.sysctls).get(_PORT_RANGE, "32768 60999").partition(" ")
    return range(int(low), int(high) + 1)


def is_relevant(uplinks: Iterable[Uplink], family: Family) -> bool:
    """Whether such a socket can reply from the wrong address: not if the uplinks have only one."""
    return len({a.address for u in uplinks for a in u.addresses if a.family == family}) > 1


def redirects(facts: Facts, port: int, family: Family) -> tuple[Redirect, ...]:
    """For every client of a family, the source address of replies from a wildcard socket on `port`.
    Clients without a route are left out, unless the ranges on both sides have the same address. The
    ranges are sorted and don't overlap."""
    blank = Flow(family, "0.0.0.0" if family == 4 else "::", ip_proto=IP_PROTO, sport=port)
    rules = tuple(_answering(facts.rules, blank))
    routes = {
        (family, table): Many(r for r in tables.of(facts, family, table) if r.kind not in REFUSALS)
        for table in {rule.table for rule in rules}
    }
    fib = Fib(facts, routes, rules)  # packets from own addresses come in over no uplink
    found: list[Redirect] = []
    for first, last in _pieces(family, routes.values(), rules, _networks(facts, family)):
        result = fib.lookup(replace(blank, dst=prefixes.text(family, first)))
        if result.kind != "unicast" or not result.source:
            continue
        if found and found[-1].address == result.source:
            first = prefixes.number(found.pop().first)
        found.append(
            Redirect(
                family,
                prefixes.text(family, first),
                prefixes.text(family, last),
                result.source,
            )
        )
    return tuple(found)


def _answering(rules: tuple[Rule, ...], flow: Flow) -> Iterator[Rule]:
    """The rules that may lead such a packet to a route, and the targets of their gotos."""
    targets = {(rule.family, rule.goto) for rule in rules if rule.action == "goto"}
    for rule in rules:
        if rule.action not in REFUSALS and _may_match(rule, flow):
            yield rule
        elif (rule.family, rule.priority) in targets:
            yield Rule(rule.family, rule.priority, "nop")


def _may_match(rule: Rule, flow: Flow) -> bool:
    """Whether a rule can match an unmarked packet without a source, to any destination."""
    anywhere = replace(rule, dst="") if rule.dst else rule
    return rule.family == flow.family and (rule.invert or matches(anywhere, flow))


def _networks(facts: Facts, family: Family) -> Iterable[str]:
    """The networks of the host's own addresses. The source of IPv6 packets depends on them: it is
    the address nearest to the destination (RFC 6724, 5, rule 8)."""
    if family == 6:
        for a in facts.addresses:
            if a.family == 6 and a.scope < 253 and a.prefixlen < BITS[6]:
                yield f"{a.address}/{a.prefixlen}"


def _pieces(
    family: Family,
    routes: Iterable[Many[Route]],
    rules: tuple[Rule, ...],
    networks: Iterable[str],
) -> Iterator[tuple[int, int]]:
    """The address space, split where a packet's way or source may change, as (first, last)."""
    suppressed = max((rule.suppress_prefixlength for rule in rules), default=-1)
    end = 1 << BITS[family]
    borders = {0, end}
    for table in routes:
        borders.update(tables.borders(table, suppressed))
    for prefix in (*(rule.dst for rule in rules if rule.family == family and rule.dst), *networks):
        first, length = prefixes.network(prefix)
        borders |= {first, first + (end >> length)}
    for first, after in itertools.pairwise(sorted(borders)):
        yield first, after - 1

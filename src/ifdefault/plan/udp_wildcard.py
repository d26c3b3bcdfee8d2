"""UDP servers that are bound to no address: which address the kernel would answer from.

Such a socket, if it ignores IP_PKTINFO, answers from the address that the route to the client
names, whatever address was asked. Packets to any other address of ours are therefore redirected
to that one, and the reply gets its name back on the way out (conntrack).

Rules: the answer is computed by the same lookup that `explain` uses, for every client there can
be: the address space is cut where any route begins or ends, and each piece is asked once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ifdefault.model.address import BITS
from ifdefault.model.config import Config, Family
from ifdefault.model.kernel import Facts, Redirect, Route, Rule, Uplink
from ifdefault.plan import prefixes
from ifdefault.plan.lookup import Fib, Flow, matches

# DHCP (67, 68, 546, 547), NetBIOS, SSDP, mDNS and LLMNR speak to their link alone
_LINK_PROTOCOLS = {67, 68, 546, 547, 137, 138, 1900, 5353, 5355}
IP_PROTO = 17  # UDP's
_PORT_RANGE = "net/ipv4/ip_local_port_range"


def ports(config: Config, facts: Facts, family: Family) -> tuple[int, ...]:
    """The ports whose packets need redirecting. "auto" takes every UDP socket bound to no
    address, but for link protocols and for clients' ports (ip_local_port_range)."""
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
    """From which the kernel takes those of sockets that name none."""
    low, _, high = dict(facts.sysctls).get(_PORT_RANGE, "32768 60999").partition(" ")
    return range(int(low), int(high) + 1)


def concerns(uplinks: Iterable[Uplink], family: Family) -> bool:
    """Whether such a socket can answer wrongly: not if the uplinks have but one address in all."""
    return len({a.address for u in uplinks for a in u.addresses if a.family == family}) > 1


def redirects(
    facts: Facts, port: int, family: Family, routes: tuple[Route, ...], rules: tuple[Rule, ...]
) -> tuple[Redirect, ...]:
    """Every client of a family, with the address that it is answered from by a socket on `port`;
    pieces where the kernel has no answer are left out."""
    blank = Flow(family, "0.0.0.0" if family == 4 else "::", ip_proto=IP_PROTO, sport=port)
    fib = Fib(facts, routes, tuple(r for r in rules if _may_match(r, blank)))
    found: list[Redirect] = []
    for first, last in _pieces(family, routes, rules):
        verdict = fib.lookup(replace(blank, dst=prefixes.text(family, first)))
        if verdict.kind != "unicast" or not verdict.source:
            continue
        if found and found[-1].address == verdict.source and _adjoin(found[-1].last, first):
            first = prefixes.number(found.pop().first)
        found.append(
            Redirect(
                family,
                prefixes.text(family, first),
                prefixes.text(family, last),
                verdict.source,
            )
        )
    return tuple(found)


def _may_match(rule: Rule, flow: Flow) -> bool:
    """Whether a rule can match a packet of no source and no mark, to wherever it goes."""
    anywhere = replace(rule, dst="") if rule.dst else rule
    return rule.family == flow.family and (rule.invert or matches(anywhere, flow))


def _adjoin(last: str, first: int) -> bool:
    return prefixes.number(last) + 1 == first


def _pieces(
    family: Family, routes: tuple[Route, ...], rules: tuple[Rule, ...]
) -> Iterator[tuple[int, int]]:
    """The address space, cut at the borders of every route and rule."""
    bits = BITS[family]
    borders = {0, 1 << bits}
    spoken = [r.dst for r in routes if r.family == family]
    spoken += [r.dst for r in rules if r.family == family and r.dst]
    for prefix in set(spoken):
        first, length = prefixes.network(prefix)
        borders |= {first, first + (1 << (bits - length))}
    ordered = sorted(borders)
    for first, after in itertools.pairwise(ordered):
        yield first, after - 1

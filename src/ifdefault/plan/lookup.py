"""The kernel's route lookup as a pure function of facts: where a packet goes, and why.

Rules: follows net/core/fib_rules.c and ip-rule(8): rules in order, goto, invert and suppressors;
in a table the longest prefix, then the lowest metric. Of multipath routes the first hop is used;
the kernel's hash isn't modelled. A flow with an oif is that of a socket bound to the device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from ifdefault.model.address import BITS
from ifdefault.model.config import Family
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import PROTOCOL, TABLE_LOCAL, Address, Facts, Hop, Link, Route, Rule
from ifdefault.model.many import Many
from ifdefault.plan import prefixes, tables
from ifdefault.plan.rule_index import rule_index

_PREFERENCES = ("high", "", "low")
REFUSALS = ("blackhole", "unreachable", "prohibit")


@dataclass(frozen=True, slots=True)
class LookupResult:
    """The result of a lookup. `kind`: unicast, local, blackhole, unreachable, prohibit. `source`:
    the flow's source, or the address that the kernel picks if it has none.
    """

    kind: str
    rule: Rule | None = None
    route: Route | None = None
    hop: Hop | None = None
    source: str = ""


class Fib:
    """The forwarding information base of a host, indexed for many lookups."""

    def __init__(self, facts: Facts, routes: tables.Tables, rules: Iterable[Rule]) -> None:
        self._rules = rule_index(Many.of(rules))
        self._groups = {link.name: link.group for link in facts.links}
        self._sources = Sources(facts)
        self._tables = {key: tables.index(some) for key, some in routes.items()}
        self._ranked: dict[tuple[Family, int, int, int], Sequence[Route]] = {}

    @classmethod
    def of(cls, facts: Facts) -> Fib:
        routes = {**tables.by_table(facts), **tables.grouped(local_routes(facts))}
        return cls(facts, routes, facts.rules)

    def lookup(self, flow: Flow) -> LookupResult:
        """The result of the first rule that yields a route."""
        result = self._by_rules(flow)
        if result.kind in REFUSALS and flow.family == 4 and flow.oif and not flow.iif:
            # "apparently, routing tables are wrong; assume that the destination is on link"
            # (net/ipv4/route.c, ip_route_output_key_hash_rcu)
            hop = Hop(flow.oif)
            return LookupResult("unicast", hop=hop, source=flow.src or self._sources.of_hop(4, hop))
        return result

    def _by_rules(self, flow: Flow) -> LookupResult:
        skip_to = -1
        for rule in self._rules.candidates(flow):
            if rule.priority < skip_to or not matches(rule, flow):
                continue
            if rule.action == "goto":
                if (rule.family, rule.goto) in self._rules.priorities:  # otherwise unresolved
                    skip_to = rule.goto
            elif rule.action in REFUSALS:
                return LookupResult(rule.action, rule)
            elif rule.action == "lookup" and (result := self._in_table(rule, flow)):
                return result
        return LookupResult("unreachable")

    def _in_table(self, rule: Rule, flow: Flow) -> LookupResult | None:
        route, hop = self._best(rule.table, flow)
        if route is None:
            return None
        if route.kind in REFUSALS:
            return LookupResult(route.kind, rule, route)
        length = prefixes.network(route.dst)[1]
        if length <= rule.suppress_prefixlength:
            return None
        if rule.suppress_ifgroup >= 0 and hop:
            group = self._groups.get(hop.dev, 0)
            if group == rule.suppress_ifgroup:
                return None
        if route.kind == "local":
            return LookupResult("local", rule, route)
        source = flow.src or route.src
        if hop and not source:
            source = self._sources.of_hop(flow.family, hop, flow.dst)
        return LookupResult("unicast", rule, route, hop, source)

    def _best(self, table: int, flow: Flow) -> tuple[Route | None, Hop | None]:
        lengths = self._tables.get((flow.family, table))
        if not lengths:
            return None, None
        address, bits = prefixes.number(flow.dst), BITS[flow.family]
        for length, first in prefixes.covering(lengths, address, bits):
            for route in self._candidates(flow.family, table, length, first):
                if route.kind == "throw":
                    return None, None
                if route.from_prefix and not _source_in(route.from_prefix, flow):
                    continue
                if route.kind in REFUSALS:
                    return route, None
                for hop in route.hops:
                    if not flow.oif or hop.dev == flow.oif:
                        return route, hop
        return None, None

    def _candidates(self, family: Family, table: int, length: int, first: int) -> Sequence[Route]:
        """The routes to one prefix, the best first."""
        routes = self._tables[family, table][length].get(first, ())
        if len(routes) < 2:
            return routes
        key = (family, table, length, first)
        if key not in self._ranked:
            self._ranked[key] = sorted(routes, key=_rank)
        return self._ranked[key]


def predict(
    facts: Facts,
    own_tables: range,
    routes: tuple[Route, ...],
    rules: tuple[Rule, ...],
    groups: Mapping[str, int],
) -> Facts:
    """The facts as they will be with these routes, rules and link groups of ours."""
    foreign = (rule for rule in facts.rules if rule.protocol != PROTOCOL)
    return replace(
        facts,
        links=with_groups(facts.links, groups),
        routes=tables.joined(predicted_tables(facts, own_tables, routes)),
        # sorted() is stable: our rules follow foreign rules of the same priority
        rules=tuple(sorted((*foreign, *rules), key=lambda rule: rule.priority)),
    )


def predicted_tables(facts: Facts, own: range, routes: Iterable[Route]) -> tables.Tables:
    """The tables as they will be with these routes of ours."""
    foreign = {key: some for key, some in tables.by_table(facts).items() if key[1] not in own}
    return {**foreign, **tables.grouped(routes)}


def with_groups(links: Sequence[Link], groups: Mapping[str, int]) -> tuple[Link, ...]:
    """Links with other link groups."""
    return tuple(
        link
        if groups.get(link.name, link.group) == link.group
        else replace(link, group=groups[link.name])
        for link in links
    )


def local_routes(facts: Facts) -> Sequence[Route]:
    """Table local, derived from the host's addresses if it wasn't read."""
    return facts.local if facts.local is not None else _of_addresses(Many.of(facts.addresses))


@functools.lru_cache(maxsize=2)
def _of_addresses(addresses: Many[Address]) -> Many[Route]:
    return Many(
        Route(
            a.family, TABLE_LOCAL, f"{a.address}/{BITS[a.family]}", kind="local", hops=(Hop(a.dev),)
        )
        for a in addresses
    )


class Sources:
    """The source address that the kernel picks if neither the packet nor the route has one."""

    def __init__(self, facts: Facts) -> None:
        self._links = [link.name for link in facts.links]
        self._own, self._here_6 = _by_device(Many.of(facts.addresses))

    def of_hop(self, family: Family, hop: Hop, dst: str = "") -> str:
        return self._of_hop_4(hop) if family == 4 else self._of_hop_6(hop, dst)

    def _of_hop_4(self, hop: Hop) -> str:
        """net/ipv4/devinet.c, inet_select_addr: an address of the device, preferably in the
        gateway's subnet; otherwise of any device."""
        for dev in (hop.dev, *self._links):
            own = [a for a in self._own.get((4, dev), ()) if not a.secondary]
            if own:
                via = hop.gateway if dev == hop.dev and ":" not in hop.gateway else ""
                return next((a for a in own if via and _is_in_subnet(a, via)), own[0]).address
        return ""

    def _of_hop_6(self, hop: Hop, dst: str) -> str:
        """net/ipv6/addrconf.c, ipv6_dev_get_saddr (RFC 6724): the rules that apply to servers."""

        def score(a: Address) -> tuple[bool, bool, bool, bool, int]:
            far = prefixes.number(a.address) ^ prefixes.number(dst or a.address)
            common = min(128 - far.bit_length(), a.prefixlen)
            label = _unique_local(a.address) == _unique_local(dst)
            return not a.deprecated, a.dev == hop.dev, label, not a.secondary, common

        if dst in self._here_6:
            return dst
        own = [a for a in self._own.get((6, hop.dev), ()) if not a.deprecated]
        if not own:
            own = [a for (family, _), some in self._own.items() if family == 6 for a in some]
        return max(own, key=score).address if own else ""


@functools.lru_cache(maxsize=2)
def _by_device(
    addresses: Many[Address],
) -> tuple[Mapping[tuple[Family, str], Sequence[Address]], Set[str]]:
    """The addresses that may be a source, by device, and all IPv6 addresses."""
    own: dict[tuple[Family, str], list[Address]] = {}
    for a in addresses:
        if a.scope < 253 and not a.tentative:
            own.setdefault((a.family, a.dev), []).append(a)
    return own, {a.address for a in addresses if a.family == 6}


def _is_in_subnet(address: Address, gateway: str) -> bool:
    subnet = f"{address.peer or address.address}/{address.prefixlen}"
    return prefixes.contains(address.family, subnet, gateway)


def _unique_local(address: str) -> bool:
    return bool(address) and prefixes.contains(6, "fc00::/7", address)


def _rank(route: Route) -> tuple[int, int, int]:
    """Sort key of routes to one prefix: source prefix length, metric, RFC 4191 preference."""
    source = prefixes.network(route.from_prefix)[1]
    return -source, route.metric, _PREFERENCES.index(route.preference)


def _source_in(prefix: str, flow: Flow) -> bool:
    return bool(flow.src) and prefixes.contains(flow.family, prefix, flow.src)


def matches(rule: Rule, flow: Flow) -> bool:
    """Whether a rule's selectors match this packet (net/core/fib_rules.c, fib_rule_match)."""
    if rule.family != flow.family:
        return False
    matched = (
        (not rule.iif or rule.iif == (flow.iif or "lo"))
        and (not rule.oif or rule.oif == flow.oif)
        and (not rule.mask or (flow.mark ^ rule.mark) & rule.mask == 0)
        and (not rule.src or (bool(flow.src) and _inside(flow, rule.src, flow.src)))
        and (not rule.dst or _inside(flow, rule.dst, flow.dst))
        and (not rule.ip_proto or rule.ip_proto == flow.ip_proto)
        and _in_range(rule.sport, flow.sport)
        and _in_range(rule.dport, flow.dport)
        and (rule.uids == (-1, -1) or rule.uids[0] <= flow.uid <= rule.uids[1])
        and not rule.tos
        and not rule.unfollowed
    )
    return matched != rule.invert


def _inside(flow: Flow, prefix: str, address: str) -> bool:
    return prefixes.contains(flow.family, prefix, address)


def _in_range(ports: tuple[int, int], port: int) -> bool:
    return ports == (0, 0) or ports[0] <= port <= ports[1]

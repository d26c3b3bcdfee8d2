"""Where would this packet go, and why? The kernel's route lookup, as a pure function of facts.

Rules: follows net/core/fib_rules.c and ip-rule(8): rules in order, goto, invert and suppressors;
in a table the longest prefix, then the lowest metric. Multipath picks the first hop: the kernel's
hash isn't modelled. The local table is derived from the host's addresses.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ifdefault.model import TABLE_LOCAL, Address, Facts, Family, Hop, Route, Rule
from ifdefault.plan import prefixes

_REFUSALS = ("blackhole", "unreachable", "prohibit")


@dataclass(frozen=True, order=True, slots=True)
class Flow:
    """A packet's selectors. `iif` "" means made by this host; `src` "" not chosen yet."""

    family: Family
    dst: str
    src: str = ""
    iif: str = ""
    oif: str = ""
    mark: int = 0
    ip_proto: int = 0
    sport: int = 0
    dport: int = 0
    uid: int = 0


@dataclass(frozen=True, order=True, slots=True)
class Verdict:
    """What becomes of the packet. `kind`: unicast, local, blackhole, unreachable, prohibit.

    `source` is the address that the kernel picks where the flow named none.
    """

    kind: str
    rule: Rule | None = None
    route: Route | None = None
    hop: Hop | None = None
    source: str = ""


class Fib:
    """The forwarding information of one host, indexed for many questions."""

    def __init__(self, facts: Facts, routes: tuple[Route, ...], rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._groups = {link.name: link.group for link in facts.links}
        self._local = {(a.family, a.address) for a in facts.addresses}
        self._by_dev: dict[tuple[Family, str], list[Address]] = defaultdict(list)
        for a in facts.addresses:
            if a.scope < 253 and not a.tentative:
                self._by_dev[a.family, a.dev].append(a)
        self._tables: dict[tuple[Family, int], dict[int, dict[int, list[Route]]]] = {}
        for route in routes:
            first, length = prefixes.network(route.dst)
            table = self._tables.setdefault((route.family, route.table), {})
            table.setdefault(length, {}).setdefault(first, []).append(route)

    @classmethod
    def of(cls, facts: Facts) -> Fib:
        return cls(facts, facts.routes, facts.rules)

    def lookup(self, flow: Flow) -> Verdict:
        """The first rule that yields a route decides."""
        skip_to = -1
        for rule in self._rules:
            if rule.family != flow.family or rule.priority < skip_to:
                continue
            if not matches(rule, flow):
                continue
            if rule.action == "goto":
                skip_to = rule.goto
            elif rule.action in _REFUSALS:
                return Verdict(rule.action, rule)
            elif rule.action == "lookup" and (verdict := self._in_table(rule, flow)):
                return verdict
        return Verdict("unreachable")

    def _in_table(self, rule: Rule, flow: Flow) -> Verdict | None:
        if rule.table == TABLE_LOCAL:
            return Verdict("local", rule) if (flow.family, flow.dst) in self._local else None
        route, hop = self._best(rule.table, flow)
        if route is None:
            return None
        if route.kind in _REFUSALS:
            return Verdict(route.kind, rule, route)
        length = prefixes.network(route.dst)[1]
        if length <= rule.suppress_prefixlength:
            return None
        if rule.suppress_ifgroup >= 0 and hop:
            group = self._groups.get(hop.dev, 0)
            if group == rule.suppress_ifgroup:
                return None
        return Verdict("unicast", rule, route, hop, flow.src or self._source(route, hop, flow.dst))

    def _best(self, table: int, flow: Flow) -> tuple[Route | None, Hop | None]:
        lengths = self._tables.get((flow.family, table))
        if not lengths:
            return None, None
        bits, value = prefixes.BITS[flow.family], prefixes.number(flow.dst)
        for length in sorted(lengths, reverse=True):
            candidates = lengths[length].get(value >> (bits - length) << (bits - length), ())
            for route in sorted(candidates, key=lambda r: (-_specific(r), r.metric)):
                if route.kind == "throw":
                    return None, None
                if route.from_prefix and not _from(route.from_prefix, flow):
                    continue
                if route.kind in _REFUSALS:
                    return route, None
                for hop in route.hops:
                    if not flow.oif or hop.dev == flow.oif:
                        return route, hop
        return None, None

    def _source(self, route: Route, hop: Hop | None, dst: str) -> str:
        """The route's own source, else the device's address nearest to the next hop."""
        if route.src or hop is None:
            return route.src
        own = self._by_dev.get((route.family, hop.dev), [])
        target = hop.gateway or dst
        for address in own:
            prefix = f"{address.address}/{address.prefixlen}"
            if prefixes.family_of(target) == route.family and prefixes.contains(
                route.family, prefix, target
            ):
                return address.address
        return own[0].address if own else ""


def _specific(route: Route) -> int:
    return prefixes.network(route.from_prefix)[1] if route.from_prefix else 0


def _from(prefix: str, flow: Flow) -> bool:
    return bool(flow.src) and prefixes.contains(flow.family, prefix, flow.src)


def matches(rule: Rule, flow: Flow) -> bool:
    """Whether a rule's selectors take this packet (net/core/fib_rules.c, fib_rule_match)."""
    found = (
        (not rule.iif or rule.iif == (flow.iif or "lo"))
        and (not rule.oif or rule.oif == flow.oif)
        and (not rule.mask or flow.mark & rule.mask == rule.mark)
        and (not rule.src or (bool(flow.src) and _inside(flow, rule.src, flow.src)))
        and (not rule.dst or _inside(flow, rule.dst, flow.dst))
        and (not rule.ip_proto or rule.ip_proto == flow.ip_proto)
        and _in_range(rule.sport, flow.sport)
        and _in_range(rule.dport, flow.dport)
        and (rule.uids == (-1, -1) or rule.uids[0] <= flow.uid <= rule.uids[1])
        and not rule.tos
        and not rule.l3mdev
    )
    return found != rule.invert


def _inside(flow: Flow, prefix: str, address: str) -> bool:
    return prefixes.contains(flow.family, prefix, address)


def _in_range(ports: tuple[int, int], port: int) -> bool:
    return ports == (0, 0) or ports[0] <= port <= ports[1]

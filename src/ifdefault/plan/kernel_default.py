"""The default route that the kernel has for an uplink: through which router, and from which source.

Rules: only other programs' routes count. They are ordered as the kernel does it: first the table
that the rules choose for the uplink's address, or else main, since metrics order the routes of one
table only; in it the longest source prefix, the lowest metric and RFC 4191's preference. A router
that isn't reachable is passed over while another answers (RFC 4861, 6.3.6); of equal ones, ours
is kept, so that routers which come and go don't move the uplink each time. Any host on the link may
advertise itself as a router, and as many: what is configured precedes what is advertised with the
same metric, and only some routers of a link are considered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import PROTOCOL, PROTOCOL_RA, TABLE_MAIN, Facts, Hop, Route
from ifdefault.plan import numbers, prefixes, tables
from ifdefault.plan.lookup import Fib

_FAR: dict[Family, str] = {4: "192.88.99.1", 6: "3fff::1"}  # RFC 7526, RFC 9637: nobody's
_PREFERENCES = ("high", "", "low")  # RFC 4191
ROUTERS_MAX = 8  # of a link


@dataclass(frozen=True, slots=True)
class KernelDefault:
    """A default route, and its hop over the interface in question. `routers`: the gateways that it
    was chosen from, if there are several."""

    route: Route
    hop: Hop
    routers: tuple[str, ...] = ()


class KernelDefaults:
    """The default routes of other programs, indexed for all uplinks."""

    def __init__(self, config: Config, facts: Facts) -> None:
        own = numbers.own_tables(config.host)
        defaults = tables.defaults(facts)
        self._facts = facts
        self._ours = {
            (r.table, hop.dev, hop.gateway)
            for r in defaults
            if r.protocol == PROTOCOL
            for hop in r.hops
        }
        self._routes = tuple(r for r in defaults if r.protocol != PROTOCOL and r.table not in own)
        rules = tuple(rule for rule in facts.rules if rule.protocol != PROTOCOL)
        self._fib = Fib(facts, tables.grouped(self._routes), rules)
        self._macs = {(n.dev, n.address): n.mac for n in facts.neighbours}

    def used(self, family: Family, source: str = "", interface: str = "") -> Route | None:
        """The default route of a packet with this source, from a socket bound to the interface."""
        result = self._fib.lookup(Flow(family, _FAR[family], source, oif=interface))
        return result.route if result.kind == "unicast" else None

    def interfaces(self, family: Family) -> tuple[str, ...]:
        """The interfaces with a default in main, best first, and before them what new connections
        use now. Other tables aren't in any order."""
        used = self.used(family)
        routes = [
            r
            for r in self._routes
            if r.family == family
            and r.kind == "unicast"
            and not r.from_prefix
            and (r.table == TABLE_MAIN or r == used)
        ]
        routes.sort(key=lambda r: (r != used, r.metric, _PREFERENCES.index(r.preference)))
        return tuple(dict.fromkeys(hop.dev for route in routes for hop in route.hops))

    def balanced(self) -> tuple[Hop, ...]:
        """The hops of a multipath default among several interfaces that new connections use."""
        for family in FAMILIES:
            used = self.used(family)
            if used and len({hop.dev for hop in used.hops}) > 1:
                return used.hops
        return ()

    def find(
        self, interface: str, family: Family, sources: Sequence[str], table: int = 0
    ) -> KernelDefault | None:
        """The default over an interface for the first of these addresses that has one, or for no
        address in particular. `table` is ours, whose router is kept among equal ones."""
        leading = [
            route
            for route in self._routes
            if route.family == family
            and route.kind == "unicast"
            and any(hop.dev == interface for hop in route.hops)
        ]
        if not leading:
            return None
        for source in (*sources, ""):
            fitting = [r for r in leading if _fits(r, source)]
            used = self.used(family, source, interface)
            if used and used in fitting:
                return self._best([r for r in fitting if r.table == used.table], interface, table)
        for source in (*sources, ""):  # no rule leads to them
            fitting = [r for r in leading if _fits(r, source)]
            if fitting:
                first = min((r.table != TABLE_MAIN, r.table) for r in fitting)[1]
                return self._best([r for r in fitting if r.table == first], interface, table)
        return None

    def _best(self, routes: Sequence[Route], interface: str, table: int) -> KernelDefault:
        choices = [
            KernelDefault(route, hop)
            for route in routes
            for hop in route.hops
            if hop.dev == interface
        ]
        if len(choices) == 1:
            return choices[0]
        choices.sort(key=lambda c: _order(c.route))
        ours = [c for c in choices if (table, interface, c.hop.gateway) in self._ours]
        choices = choices[:ROUTERS_MAX] + [c for c in choices[ROUTERS_MAX:] if c in ours]
        others_answer = any(self._answers(c) for c in choices)
        none_answers = all(self._answers(c) is False for c in choices)

        def rank(choice: KernelDefault) -> tuple[object, ...]:
            route, answers = choice.route, self._answers(choice)
            return (
                -prefixes.network(route.from_prefix)[1],
                others_answer and answers is False,
                none_answers and choice not in ours,
                _order(route),
                not self._is_on_link(interface, choice.hop),
                choice not in ours,
            )

        best = min(choices, key=rank)  # the first of equal ones, in kernel order
        routers = sorted({c.hop.gateway for c in choices if c.hop.gateway})
        return replace(best, routers=tuple(routers) if len(routers) > 1 else ())

    def _answers(self, choice: KernelDefault) -> bool | None:
        """Whether a router answers ARP or neighbour discovery, as far as the kernel knows."""
        hop = choice.hop
        if not hop.gateway:
            return True
        mac = self._macs.get((hop.dev, hop.gateway))
        return None if mac is None else bool(mac)

    def _is_on_link(self, interface: str, hop: Hop) -> bool:
        """Whether a gateway is in a prefix of the link; that of a lost lease is in none."""
        gateway = hop.gateway
        if not gateway or hop.onlink:
            return True
        family = family_of(gateway)
        if family == 6 and prefixes.contains(6, "fe80::/10", gateway):
            return True
        return any(
            prefixes.contains(family, route.dst, gateway)
            for route in tables.on_link(self._facts, family, interface)
        )


def _order(route: Route) -> tuple[int, int, bool, int]:
    """The order of the default routes of a table."""
    _, length = prefixes.network(route.from_prefix)
    advertised = route.protocol == PROTOCOL_RA
    return -length, route.metric, advertised, _PREFERENCES.index(route.preference)


def _fits(route: Route, source: str) -> bool:
    """Whether a packet with this source may use a route (`ip -6 route add … from PREFIX`)."""
    prefix = route.from_prefix
    return not prefix or (bool(source) and prefixes.contains(route.family, prefix, source))


def alternatives(facts: Facts, interfaces: Collection[str]) -> frozenset[tuple[str, str]]:
    """The gateways of these interfaces that have several in a family, as (interface, gateway)."""
    gateways: dict[tuple[str, Family], dict[str, None]] = {}
    defaults = [route for route in tables.defaults(facts) if route.protocol != PROTOCOL]
    for route in sorted(defaults, key=_order):
        for hop in route.hops:
            if hop.gateway and hop.dev in interfaces:
                gateways.setdefault((hop.dev, route.family), {})[hop.gateway] = None
    several = ((dev, [*many]) for (dev, _), many in gateways.items() if len(many) > 1)
    return frozenset((dev, gateway) for dev, many in several for gateway in many[:ROUTERS_MAX])

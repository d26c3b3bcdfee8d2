"""The uplinks of a host as the tables of other programs have them.

Rules: pure. Several routers on one LAN are an uplink each. What only such a table knows, a gateway
or a source address, is fixed in the config, since it goes with the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ifdefault.host.discover import Candidate
from ifdefault.model.address import family_of
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.kernel import PROTOCOL, TABLE_DEFAULT, TABLE_MAIN, Facts, Hop, Route
from ifdefault.plan import foreign_rules, prefixes, tables
from ifdefault.plan.foreign_rules import ForeignRule
from ifdefault.plan.own_addresses import own_addresses


@dataclass(slots=True)
class _Router:
    """The gateways of one router of a link, by family, and the tables that lead to it."""

    gateways: dict[Family, str]
    tables: set[int] = field(default_factory=set)

    def is_also(self, gateways: Mapping[Family, str]) -> bool:
        """Whether these may be its own: none of another router in a family that it has."""
        return all(self.gateways.get(family, g) == g for family, g in gateways.items())


def as_routed(
    candidates: Iterable[Candidate],
    facts: Facts,
    found: Sequence[ForeignRule],
    names: Mapping[int, str],
) -> list[Candidate]:
    """The uplinks, named after their tables. `names`: of tables."""
    return [
        _named(_explicit(part, facts), found, names)
        for candidate in candidates
        for part in _by_router(candidate, facts, found)
    ]


def _by_router(candidate: Candidate, facts: Facts, found: Sequence[ForeignRule]) -> list[Candidate]:
    """An uplink for each router of a shared LAN to which main's or a table's default leads."""
    routers = [_Router(main, {TABLE_MAIN})] if (main := _of_main(candidate, facts)) else []
    for table, hops in foreign_rules.by_table(found):
        if hops[0].dev != candidate.interface or not all(hop.gateway for hop in hops):
            continue
        gateways = {family_of(hop.gateway): hop.gateway for hop in hops}
        router = next((r for r in routers if r.is_also(gateways)), None)
        if router is None:
            routers.append(router := _Router({}))
        router.gateways |= gateways
        router.tables.add(table)
    if len(routers) < 2:
        return [candidate]
    selected = {
        f.rule.src: f.rule.table for f in found if f.kind == "reply" and f.rule.src and f.hops
    }
    return [_of_router(candidate, facts, router, selected) for router in routers]


def _of_main(candidate: Candidate, facts: Facts) -> dict[Family, str]:
    """The gateways of main's best default routes over an interface."""
    gateways: dict[Family, str] = {}
    for family in FAMILIES:
        routes = [r for r in _defaults(facts, family) if not r.from_prefix]
        for route in sorted(routes, key=lambda r: r.metric):
            for hop in route.hops:
                if hop.dev == candidate.interface and hop.gateway:
                    gateways.setdefault(family, hop.gateway)
    return gateways


def _defaults(facts: Facts, family: Family) -> list[Route]:
    return [
        route
        for route in tables.of(facts, family, TABLE_MAIN)
        if route.dst == "default" and route.protocol != PROTOCOL
    ]


def _of_router(
    candidate: Candidate, facts: Facts, router: _Router, selected: Mapping[str, int]
) -> Candidate:
    """With the addresses that rules select for its tables; main's has those of no other."""
    own = []
    for address in own_addresses(facts).usable:
        at = {
            table
            for prefix, table in selected.items()
            if family_of(prefix) == address.family
            and prefixes.contains(address.family, prefix, address.address)
        }
        rest = TABLE_MAIN in router.tables and not at and address in candidate.addresses
        if at & router.tables or rest:
            own.append(address)
    return replace(
        candidate,
        addresses=tuple(own),
        gateways=tuple(router.gateways.items()),
        fixed_addresses=tuple(a.address for a in own),
        fixed_gateways=tuple(router.gateways.values()),
    )


def _explicit(candidate: Candidate, facts: Facts) -> Candidate:
    if candidate.fixed_gateways:
        return candidate
    going = [d for d in candidate.defaults if not _stays(facts, d.route.family, d.hop)]
    sources = [d.route.src for d in going if d.route.src]
    others = [a.address for a in candidate.addresses if a.address not in sources]
    several = {family_of(a) for a in others} & {family_of(s) for s in sources}
    return replace(
        candidate,
        fixed_gateways=tuple(d.hop.gateway for d in going if d.hop.gateway),
        fixed_addresses=(*sources, *others) if several else (),
    )


def _stays(facts: Facts, family: Family, hop: Hop) -> bool:
    """Whether main has a default route by this router, too."""
    return any(
        (hop.dev, hop.gateway) == (other.dev, other.gateway)
        for route in _defaults(facts, family)
        for other in route.hops
    )


def _named(
    candidate: Candidate, found: Sequence[ForeignRule], names: Mapping[int, str]
) -> Candidate:
    gateways = {gateway for _, gateway in candidate.gateways}
    for table, hops in foreign_rules.by_table(found):
        mine = all(h.dev == candidate.interface and h.gateway in gateways for h in hops)
        if mine and table in names and table not in (TABLE_MAIN, TABLE_DEFAULT):
            return replace(candidate, name=names[table])
    return candidate

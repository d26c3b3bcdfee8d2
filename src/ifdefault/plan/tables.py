"""The routes of a host by table, and each table's by prefix.

Rules: what is derived from a large table is kept until the table changes, since a plan asks for it
many times, and the next plan again.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ifdefault.model.address import BITS
from ifdefault.model.config import Family
from ifdefault.model.kernel import TABLE_MAIN, Facts, Hop, Route
from ifdefault.model.many import Many
from ifdefault.plan import prefixes

Tables = Mapping[tuple[Family, int], Many[Route]]
Index = Mapping[int, Mapping[int, list[Route]]]  # by length and first address of the destination
_LARGE = 100
_NONE: Many[Route] = Many()


def of(facts: Facts, family: Family, table: int) -> Many[Route]:
    """The routes of one table."""
    return by_table(facts).get((family, table), _NONE)


def by_table(facts: Facts) -> Tables:
    return _by_table(Many.of(facts.routes))


def defaults(facts: Facts) -> Many[Route]:
    """The default routes of all tables that lead somewhere."""
    return _sorted_out(Many.of(facts.routes)).defaults


def on_link(facts: Facts, family: Family, interface: str, table: int = 0) -> Sequence[Route]:
    """The routes, other than defaults, by which an interface reaches its link; of any table."""
    on_link = _sorted_out(Many.of(facts.routes)).on_link.get((family, interface), ())
    return [route for route in on_link if table in (0, route.table)]


def specific(facts: Facts, family: Family, interface: str) -> Sequence[Route]:
    """Main's unicast routes over an interface, but for defaults."""
    return _specific(of(facts, family, TABLE_MAIN)).get(interface, ())


def not_like(facts: Facts, interface: str, default: Route) -> Sequence[Route]:
    """Those of `specific` by which packets don't go to the router of this default, and those that
    are exceptions from such routes."""
    main = of(facts, default.family, TABLE_MAIN)
    return _not_like(main, interface, default.hops, default.src, default.metrics)


@functools.lru_cache(maxsize=8)
def _not_like(
    main: Many[Route],
    interface: str,
    hops: tuple[Hop, ...],
    src: str,
    metrics: tuple[tuple[int, int], ...],
) -> Sequence[Route]:
    like: list[Route] = []
    others: list[Route] = []
    for route in _specific(main).get(interface, ()):
        if route.hops != hops or route.src not in ("", src) or route.metrics != metrics:
            others.append(route)
        else:
            like.append(route)
    if not hops[0].gateway:
        others, like = others + like, []
    exceptions = _inside(like, _index(others))
    return [route for route in (*others, *exceptions) if not route.from_prefix]


@dataclass(frozen=True, slots=True)
class _Sorted:
    defaults: Many[Route]
    on_link: Mapping[tuple[Family, str], Sequence[Route]]


@functools.lru_cache(maxsize=2)
def _sorted_out(routes: Many[Route]) -> _Sorted:
    on_link: dict[tuple[Family, str], list[Route]] = {}
    for hops, some in _by_hops(routes):
        for interface in {hop.dev for hop in hops if not hop.gateway}:
            for route in some:
                if route.dst != "default":
                    on_link.setdefault((route.family, interface), []).append(route)
    return _Sorted(Many(r for r in routes if r.dst == "default" and r.hops), on_link)


@functools.lru_cache(maxsize=2)
def _specific(main: Many[Route]) -> Mapping[str, Sequence[Route]]:
    by_interface: dict[str, list[Route]] = {}
    for hops, routes in by_hops(main):
        specific = [r for r in routes if r.kind == "unicast" and r.dst != "default"]
        for interface in {hop.dev for hop in hops}:
            by_interface.setdefault(interface, []).extend(specific)
    return by_interface


def by_hops(routes: Many[Route]) -> Sequence[tuple[tuple[Hop, ...], Sequence[Route]]]:
    """The routes by their hops, which thousands may have in common."""
    return _by_hops(routes) if len(routes) < _LARGE else _kept_by_hops(routes)


def _by_hops(routes: Many[Route]) -> Sequence[tuple[tuple[Hop, ...], Sequence[Route]]]:
    groups: dict[int, list[Route]] = {}  # by identity: equal hops are one object mostly
    for route in routes:
        groups.setdefault(id(route.hops), []).append(route)
    return [(some[0].hops, some) for some in groups.values()]


_kept_by_hops = functools.lru_cache(maxsize=2)(_by_hops)


def joined(tables: Tables) -> Many[Route]:
    """The routes of all these tables."""
    return Many(route for routes in tables.values() for route in routes)


@functools.lru_cache(maxsize=4)
def _by_table(routes: Many[Route]) -> Tables:
    return grouped(routes)


def grouped(routes: Iterable[Route]) -> Tables:
    tables: dict[tuple[Family, int], list[Route]] = {}
    for route in routes:
        tables.setdefault((route.family, route.table), []).append(route)
    return {key: Many(some) for key, some in tables.items()}


def index(routes: Many[Route]) -> Index:
    return _index(routes) if len(routes) < _LARGE else _kept_index(routes)


def borders(routes: Many[Route], wide: int) -> Sequence[int]:
    """The addresses, in order, from which on other routes of a table apply, or none does. Routes
    by the same hops with the same source count as one, if none of them is as short as `wide`."""
    return _borders(routes, wide) if len(routes) < _LARGE else _kept_borders(routes, wide)


def _borders(routes: Many[Route], wide: int) -> Sequence[int]:
    found: list[tuple[int, object]] = [(-1, None)]
    bits = BITS[routes[0].family] if routes else 0
    by_prefix = sorted(
        (first, length, some) for length, by in index(routes).items() for first, some in by.items()
    )
    inside: list[tuple[int, object]] = [(1 << bits, None)]  # networks: where they end, and the way
    for first, length, some in (*by_prefix, (1 << bits, 0, ())):
        while first >= inside[-1][0] and len(inside) > 1:
            _add(found, inside.pop()[0], inside[-1][1])
        way = (length if length <= wide else None, *((r.kind, r.hops, r.src) for r in some))
        if some:
            _add(found, first, way)
            inside.append((first + (1 << bits - length), way))
    return [address for address, _ in found[1:]]


def _add(found: list[tuple[int, object]], address: int, way: object) -> None:
    """From this address on, packets go this way."""
    if found[-1][0] == address:
        found.pop()
    if found[-1][1] != way:
        found.append((address, way))


_kept_borders = functools.lru_cache(maxsize=4)(_borders)


def _inside(routes: Sequence[Route], networks: Index) -> list[Route]:
    """The routes whose destinations are in one of these networks."""
    if not routes:
        return []
    bits = BITS[routes[0].family]
    ordered = sorted((*prefixes.network(route.dst), n) for n, route in enumerate(routes))
    found: set[int] = set()
    for length, by_first in networks.items():
        for first in by_first:
            start = bisect_left(ordered, (first,))
            end = bisect_left(ordered, (first + (1 << bits - length),), start)
            found.update(n for _, size, n in ordered[start:end] if size >= length)
    return [routes[n] for n in sorted(found)]


def _index(routes: Iterable[Route]) -> Index:
    lengths: dict[int, dict[int, list[Route]]] = {}
    for route in routes:
        first, length = prefixes.network(route.dst)
        lengths.setdefault(length, {}).setdefault(first, []).append(route)
    return lengths


_kept_index = functools.lru_cache(maxsize=2)(_index)  # main's, of both families

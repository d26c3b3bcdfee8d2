"""A copy of main without its last resort.

A route that refuses packets isn't suppressed (net/core/fib_rules.c, fib_rules_lookup): as soon as
main's other defaults are gone, `lookup main suppress_prefixlength 7` ends at a blackhole default
instead of continuing with the uplinks' rules. While main has such a route, our rules look up a copy
of main without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ifdefault.model.config import FAMILIES, Family, HostConfig
from ifdefault.model.kernel import PROTOCOL, TABLE_MAIN, Facts, Route
from ifdefault.plan import numbers, prefixes, tables
from ifdefault.plan.lookup import REFUSALS


def has_last_resort(facts: Facts, family: Family, table: int) -> bool:
    """Whether a table has a default route, or a half of one, that refuses packets."""
    by_length = tables.index(tables.of(facts, family, table))
    lengths = range(numbers.PARTS_OF_DEFAULT[family] + 1)
    short = (routes for length in lengths for routes in by_length.get(length, {}).values())
    return any(_is_last_resort(route) for routes in short for route in routes)


def _is_last_resort(route: Route) -> bool:
    length = prefixes.network(route.dst)[1]
    return route.kind in REFUSALS and length <= numbers.PARTS_OF_DEFAULT[route.family]


def table(host: HostConfig, facts: Facts, family: Family) -> int:
    """The table to look up instead of main: main itself, or the copy."""
    needed = has_last_resort(facts, family, TABLE_MAIN)
    return numbers.main_copy(host) if needed else TABLE_MAIN


def routes(host: HostConfig, facts: Facts) -> Iterator[Route]:
    """The routes of the copies that are needed."""
    for family in FAMILIES:
        copy = table(host, facts, family)
        taken: set[tuple[str, int]] = set()  # IPv6 may have several routes of one metric
        for route in tables.of(facts, family, TABLE_MAIN) if copy != TABLE_MAIN else ():
            if route.dst != "default" and _can_be_copied(route):
                metric = route.metric
                while (route.dst, metric) in taken:
                    metric += 1
                taken.add((route.dst, metric))
                yield replace(route, table=copy, metric=metric, protocol=PROTOCOL, preference="")


def _can_be_copied(route: Route) -> bool:
    """Multicast and the like decide nothing here."""
    is_plain = route.kind in ("unicast", "throw", *REFUSALS) and not route.from_prefix
    return is_plain and not _is_last_resort(route)

"""Conflicts: routing tables so large that ifdefault isn't made for them.

Rules: as in `conflicts`. Routers that take full tables from their providers choose an uplink for
each destination; ifdefault chooses one for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ifdefault.model.config import FAMILIES
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import PROTOCOL, TABLE_MAIN, Facts, Uplink
from ifdefault.plan import tables
from ifdefault.plan.describe import rule_text, table_name

MANY = 1000  # more than any DHCP server or VPN pushes over an uplink


def find(facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    interfaces = sorted({u.interface for u in uplinks})
    for family in FAMILIES:
        ip = f"ip{' -6' if family == 6 else ''}"
        for interface in interfaces:
            routes = tables.specific(facts, family, interface)
            through = sum(any(hop.gateway for hop in route.hops) for route in routes)
            if through > MANY:
                what = (
                    f"shows {through} routes through routers; packets to these networks leave by "
                    f"{interface} even while it is down"
                )
                remedy = "keep a full table out of main: ifdefault moves the default route"
                yield Problem(f"{ip} route show dev {interface}", what, remedy, warning=True)
    for family, table in facts.unread:
        where = f"table {table_name(table)}"
        remedy = "keep a full table where no rule looks it up"
        rule = next((r for r in facts.rules if (r.family, r.table) == (family, table)), None)
        if table == TABLE_MAIN:
            what = f"has more IPv{family} routes than are read; some of them aren't seen"
            yield Problem(where, what, remedy, warning=True)
        elif rule and rule.protocol != PROTOCOL:
            what = (
                f"has more IPv{family} routes than are read, and {rule_text(rule)} looks it up: "
                "where its packets go isn't predicted"
            )
            yield Problem(where, what, remedy, warning=True)

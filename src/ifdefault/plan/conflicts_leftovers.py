"""Conflicts: rules of another program that route by an uplink, as before ifdefault came.

Rules: as in `conflicts`. Nothing is said of those that our return path precedes: they do no harm,
and agents of clouds need theirs. Others keep their packets on an uplink that is down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ifdefault.model.config import Config
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import Facts, Hop, Uplink
from ifdefault.plan import foreign_rules
from ifdefault.plan.describe import rule_text, table_name
from ifdefault.plan.foreign_rules import ForeignRule

_REMEDY = "`ifdefault init --print` says how to remove it"


def find(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    interfaces = {u.interface for u in uplinks}
    found = [
        f
        for f in foreign_rules.find(facts, interfaces)
        if f.hops and not f.standard and f.kind != "reply"
    ]
    found.sort(key=lambda f: (f.rule.family, f.rule.table))
    for (family, table), group in groupby(found, key=lambda f: (f.rule.family, f.rule.table)):
        rules = list(group)
        ip = f"ip{' -6' if family == 6 else ''} rule"
        to = " or ".join(sorted({_name(hop, uplinks) for f in rules for hop in f.hops}))
        yield _problem(ip, table, to, rules)


def _name(hop: Hop, uplinks: Sequence[Uplink]) -> str:
    """The uplink whose router it is, or one of that interface."""
    on = [u for u in uplinks if u.interface == hop.dev]
    return next((u for u in on if hop.gateway in dict(u.gateways).values()), on[0]).name


def _problem(ip: str, table: int, to: str, rules: Sequence[ForeignRule]) -> Problem:
    what = f"looks up table {table_name(table)} of another program, which leads to {to}"
    more = f" (and {len(rules) - 1} more)" if len(rules) > 1 else ""
    where = f"{ip} {rule_text(rules[0].rule)}{more}"
    return Problem(where, f"{what} even while that is down", _REMEDY, True)

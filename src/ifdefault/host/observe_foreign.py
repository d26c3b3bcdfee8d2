"""Read what `init` decides from: the kernel's tables, others' packet filters, and their files.

Rules: reads, never writes. Tables that are named or mentioned are read even if no rule looks them
up.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ifdefault.host import foreign_files
from ifdefault.host.discover import discover
from ifdefault.host.takeover import Takeover, take_over
from ifdefault.kernel import foreign, nft
from ifdefault.kernel.read import read_facts
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.kernel import TABLE_DEFAULT, TABLE_LOCAL, Facts, Scope

_TABLES_MAX = 64


def take_over_host() -> tuple[Takeover, Facts]:
    """The uplinks of this host, and what other programs do with them."""
    files = foreign_files.read()
    facts = read_facts()
    mentioned = {s.table for s in files.statements} | set(files.names.values())
    ruled = {rule.table for rule in facts.rules} | {0, TABLE_LOCAL, TABLE_DEFAULT}
    unruled = sorted(mentioned - ruled)[:_TABLES_MAX]
    if unruled:
        names = frozenset(link.name for link in facts.links)
        facts = read_facts(Scope(frozenset(unruled), names, strays=True))
    with suppress(IfdefaultError, OSError):  # without nft, or without root
        ruleset = nft.ruleset_json()
        marks = foreign.foreign_marks(ruleset, foreign.iptables_saved(ruleset))
        facts = replace(facts, foreign_marks=marks)
    takeover = take_over(discover(facts), facts, files)
    if takeover.statements or takeover.commands:
        takeover = replace(takeover, first=tuple(p.remedy for p in foreign.networkd_problems()))
    return takeover, facts

"""Reverse path filters of other programs' nftables.

Rules: as in `plan.conflicts`, which calls this. Such a filter looks up the way back to the source
of a packet. One behind the translation of destinations (priority dstnat) sees the address of a
server instead of an uplink's, which no rule of the return path matches: on all uplinks but the
primary one it drops what is to be forwarded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ifdefault.model.address import family_of
from ifdefault.model.config import Config, Family
from ifdefault.model.errors import Problem
from ifdefault.model.kernel import FORWARDING, Facts, Uplink
from ifdefault.plan import connmark
from ifdefault.plan.conflicts_input import FIREWALLD
from ifdefault.plan.resolve import ready


def find(config: Config, facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    if not connmark.tracks_forwarded(config, facts):
        return
    for where, family in facts.reverse_path_filters:
        usable = [uplink.interface for uplink in ready(tuple(uplinks), family)]
        if len(set(usable)) > 1 and _forwards(config, facts, family):
            what = f"drops forwarded IPv{family} packets that arrive on {', '.join(usable[1:])}"
            why = "looks up the way back by the server's address"
            remedy = "remove the rule, or let it accept any route back (fib saddr oif)"
            if FIREWALLD in where.split():
                remedy = "set IPv6_rpfilter=no in /etc/firewalld/firewalld.conf, restart firewalld"
            yield Problem(where, f"{what}, since it {why}", remedy, warning=True)


def _forwards(config: Config, facts: Facts, family: Family) -> bool:
    if dict(facts.sysctls).get(FORWARDING[family]) == "1":
        return True
    servers = (server.address for forward in config.forwards for server in forward.to)
    return bool(config.outgoing.masquerade) or family in map(family_of, servers)

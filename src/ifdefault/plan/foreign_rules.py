"""Other programs' policy rules that route by uplinks, and what the config can say of them.

Rules: pure. The kernel is the truth for what works now. A rule counts if it looks up a table whose
default routes all leave by uplinks: those that lead into a VPN, to this host or nowhere in
particular are others' own business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ifdefault.model.address import BITS, is_private
from ifdefault.model.config import OutgoingRule
from ifdefault.model.kernel import (
    PROTOCOL,
    TABLE_DEFAULT,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    Facts,
    Hop,
    Route,
    Rule,
)
from ifdefault.model.many import Many
from ifdefault.plan import numbers, prefixes, tables
from ifdefault.plan.own_addresses import own_addresses

# what a rule is for:
#   reply       it selects an uplink's own address or device, as our return path does
#   all         it selects everything: the default route
#   main        it looks up main at another place than usual
#   mark        it selects a mark that a packet filter sets
#   outgoing    an [[outgoing.rule]] can say it
#   routed      it selects a public prefix behind the host
#   empty       it selects an uplink's own address, and its table has no routes
#   other       the config can't say it
Kind = Literal["reply", "all", "main", "mark", "outgoing", "routed", "empty", "other"]
_TRANSPORTS = {6: "tcp", 17: "udp"}
_LAST_PORT = 65534  # as in config.outgoing
_USERS = 8  # more aren't listed one by one


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """`hops`: of the table's default routes. `outgoing`: what it selects, without `via`."""

    rule: Rule
    kind: Kind
    hops: tuple[Hop, ...] = ()
    why: str = ""  # of kind other
    outgoing: OutgoingRule | None = None

    @property
    def standard(self) -> bool:
        """Whether it is one of the three rules that each network namespace has."""
        rule = self.rule
        return (rule.priority, rule.table) == (numbers.MAIN + 1, TABLE_DEFAULT)


def find(facts: Facts, uplinks: Collection[str]) -> tuple[ForeignRule, ...]:
    """The rules that route by these interfaces, in kernel order."""
    found = [
        foreign
        for rule in facts.rules
        if rule.protocol != PROTOCOL and rule.action == "lookup" and rule.priority
        if (foreign := _judge(rule, facts, uplinks))
    ]
    if all(foreign.kind in ("main", "empty") for foreign in found):
        return tuple(foreign for foreign in found if foreign.kind == "empty")
    return tuple(found)


def _judge(rule: Rule, facts: Facts, uplinks: Collection[str]) -> ForeignRule | None:
    if rule.table == TABLE_LOCAL:
        return None
    if rule.table == TABLE_MAIN:
        return ForeignRule(rule, "main") if _is_moved_main(rule, facts) else None
    routes = tables.of(facts, rule.family, rule.table)
    if not routes:  # as a VPN's that is down, unless it selects an uplink's address
        selected = {a.dev for a in _selected(rule, facts)}
        return ForeignRule(rule, "empty") if selected & set(uplinks) else None
    defaults = [r for r in _defaults(routes) if r.kind == "unicast"]
    hops = tuple(dict.fromkeys(hop for route in defaults for hop in route.hops))
    if not hops or not all(hop.dev in uplinks for hop in hops):
        return None
    return _as_config(rule, facts, hops)


def _is_moved_main(rule: Rule, facts: Facts) -> bool:
    """Shorewall moves main's rule before its own; scripts look main up without its default."""
    if rule != Rule(
        rule.family,
        rule.priority,
        table=TABLE_MAIN,
        suppress_prefixlength=rule.suppress_prefixlength,
        protocol=rule.protocol,
    ):
        return False
    if rule.suppress_prefixlength < 0:
        return rule.priority < numbers.MAIN
    full_tunnel = any(r.invert for r in facts.rules if r.family == rule.family)  # wg-quick
    return not full_tunnel


def _as_config(rule: Rule, facts: Facts, hops: tuple[Hop, ...]) -> ForeignRule:
    devices = {hop.dev for hop in hops}
    if rule.unfollowed or rule.invert or rule.tos or any(rule.sport):
        return ForeignRule(rule, "other", hops, "has a selector that the config has no key for")
    if rule.src:
        return _of_source(rule, facts, hops, devices)
    if rule.oif or rule.iif in devices:
        if not rule.oif or rule.oif in devices:
            return ForeignRule(rule, "reply", hops)
        why = f"selects sockets that are bound to {rule.oif}"
        return ForeignRule(rule, "other", hops, why)
    if rule.iif not in ("", "lo"):
        why = f"selects packets that come in on {rule.iif}"
        return ForeignRule(rule, "other", hops, why)
    if rule.mask:
        return ForeignRule(rule, "mark", hops)
    if not (rule.dst or rule.ip_proto or any(rule.dport) or rule.uids != (-1, -1)):
        return ForeignRule(rule, "all", hops)
    return _of_destination(rule, hops)


def _of_source(rule: Rule, facts: Facts, hops: tuple[Hop, ...], devices: set[str]) -> ForeignRule:
    own = _selected(rule, facts)
    for address in own:
        if address.dev not in devices and address.address not in _sources(facts, rule):
            source = rule.src.removesuffix(f"/{BITS[rule.family]}")
            why = f"selects packets from {source}, of {address.dev}"
            return ForeignRule(rule, "other", hops, why)
    if own:
        return ForeignRule(rule, "reply", hops)
    whole = Rule(rule.family, rule.priority, table=rule.table, src=rule.src, protocol=rule.protocol)
    if rule == whole and len(devices) == 1 and not is_private(rule.src.partition("/")[0]):
        return ForeignRule(rule, "routed", hops)
    return ForeignRule(rule, "other", hops, f"selects packets from {rule.src}")


def _selected(rule: Rule, facts: Facts) -> list[Address]:
    """The host's own addresses that a rule selects by source."""
    return [
        address
        for address in own_addresses(facts).usable
        if rule.src
        and address.family == rule.family
        and prefixes.contains(rule.family, rule.src, address.address)
    ]


def _sources(facts: Facts, rule: Rule) -> set[str]:
    """The sources that the table's default routes name; they may be on loopback."""
    return {r.src for r in _defaults(tables.of(facts, rule.family, rule.table)) if r.src}


def _defaults(routes: Many[Route]) -> Sequence[Route]:
    """Of a table that may be large."""
    return tables.index(routes).get(0, {}).get(0, ())


def _of_destination(rule: Rule, hops: tuple[Hop, ...]) -> ForeignRule:
    first, last = rule.uids
    transport = _TRANSPORTS.get(rule.ip_proto)
    if len(hops) > 1:
        return ForeignRule(rule, "other", hops, "balances only the packets that it selects")
    if rule.ip_proto and transport is None:
        return ForeignRule(rule, "other", hops, f"selects IP protocol {rule.ip_proto}")
    if any(rule.dport) and (transport is None or rule.dport[1] > _LAST_PORT):
        return ForeignRule(rule, "other", hops, "selects ports of several protocols, or 65535")
    if last - first >= _USERS:
        return ForeignRule(rule, "other", hops, f"selects users {first} to {last}")
    outgoing = OutgoingRule(
        via=(),
        to=(rule.dst,) if rule.dst else (),
        transport="tcp" if transport == "tcp" else "udp" if transport else None,
        ports=(rule.dport,) if any(rule.dport) else (),
        users=tuple(range(first, last + 1)) if first >= 0 else (),
    )
    return ForeignRule(rule, "outgoing", hops, outgoing=outgoing)


def by_table(found: Collection[ForeignRule]) -> Iterator[tuple[int, tuple[Hop, ...]]]:
    """The tables that rules for one uplink look up, and their hops."""
    for table in sorted({f.rule.table for f in found if f.hops}):
        hops = {hop for f in found if f.rule.table == table for hop in f.hops}
        if len({hop.dev for hop in hops}) == 1:
            yield table, tuple(sorted(hops))

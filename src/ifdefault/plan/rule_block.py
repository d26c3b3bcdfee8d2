"""Where our return-path rules stand: before foreign rules that would take uplinks' replies.

Rules: pure. The block of priorities begins as configured, or lower.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ifdefault.model.address import family_of
from ifdefault.model.config import Config, Family
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import PROTOCOL, TABLE_LOCAL, Facts, Rule
from ifdefault.plan import numbers, tables
from ifdefault.plan.lookup import matches
from ifdefault.plan.own_addresses import own_addresses

_SOMEWHERE: dict[Family, str] = {4: "203.0.113.0", 6: "2001:db8::"}  # only a default leads there


def first_priority(config: Config, facts: Facts) -> int:
    """The first priority of the return-path block: as configured, or lower, so that it precedes
    foreign rules that would take uplinks' replies."""
    return next(possible_blocks(config, facts), config.host.rule_priority)


def possible_blocks(config: Config, facts: Facts) -> Iterator[int]:
    """First priorities of blocks that end before any foreign rule that takes uplinks' replies."""
    configured = config.host.rule_priority
    lowest = min((r.priority for r in foreign_catchers(config, facts)), default=numbers.OUTGOING)
    taken = {rule.priority for rule in facts.rules if rule.protocol != PROTOCOL}
    hundreds = range(configured, numbers.BLOCK - 1, -numbers.BLOCK)
    tens = range(numbers.BLOCK - numbers.LAST_BLOCK, numbers.LOWEST_BLOCK - 1, -numbers.LAST_BLOCK)
    for first in (*hundreds, *tens):
        block = range(first, first + numbers.END + 1)
        if block[-1] < lowest and (first == configured or taken.isdisjoint(block)):
            yield first


def foreign_catchers(config: Config, facts: Facts) -> tuple[Rule, ...]:
    """Foreign rules before the end of the configured block that would take uplinks' replies."""
    end = config.host.rule_priority + numbers.END
    rules = [r for r in facts.rules if 0 < r.priority <= end and r.protocol != PROTOCOL]
    addresses = set(_addresses(config, facts)) if rules else set()
    return tuple(rule for rule in rules if catches_default(rule, facts, addresses))


def _addresses(config: Config, facts: Facts) -> Iterator[str]:
    """Those of the uplinks, and the sources that the kernel's defaults over them name."""
    own, interfaces = own_addresses(facts), {u.interface for u in config.uplinks}
    for uplink in config.uplinks:
        yield from uplink.addresses or (a.address for a in own.of_interface(uplink.interface))
    for route in tables.defaults(facts):
        if route.src and any(h.dev in interfaces for h in route.hops):
            yield route.src


def catches_default(rule: Rule, facts: Facts, addresses: Collection[str]) -> bool:
    """Whether a rule routes unmarked packets from one of these addresses by a default route of its
    own.

    Selectors for protocol, port and user are ignored: such a rule still takes some replies.
    """
    if rule.action in ("goto", "nop"):
        return False
    wide = rule
    if not rule.invert:
        wide = replace(rule, ip_proto=0, sport=(0, 0), dport=(0, 0), uids=(-1, -1))
    somewhere = _SOMEWHERE[rule.family]
    if not any(
        matches(wide, Flow(rule.family, somewhere, address))
        for address in addresses
        if family_of(address) == rule.family
    ):
        return False
    return rule.action != "lookup" or _has_default(rule, facts)


def _has_default(rule: Rule, facts: Facts) -> bool:
    """Whether a lookup finds a default route, or the two halves of one that VPNs use, that the rule
    doesn't suppress."""
    groups = {link.name: link.group for link in facts.links}
    by_length = tables.index(tables.of(facts, rule.family, rule.table))
    for length in range(rule.suppress_prefixlength + 1, numbers.SHORTEST_LOCAL[rule.family] + 1):
        for routes in by_length.get(length, {}).values():
            for route in routes:
                hidden = {groups.get(hop.dev, 0) for hop in route.hops} == {rule.suppress_ifgroup}
                if route.kind != "throw" and not hidden:
                    return True
    return False


def local_precedes(facts: Facts, family: Family, first: int) -> bool:
    """Whether the rule of table local precedes our block; VRF set-ups move it behind others."""
    return any(
        rule == Rule(family, rule.priority, table=TABLE_LOCAL, protocol=rule.protocol)
        for rule in facts.rules
        if rule.priority < first and rule.protocol != PROTOCOL
    )

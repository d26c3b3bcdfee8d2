"""The policy rules of `[[outgoing.rule]]`: traffic that uses uplinks other than the primary.

Rules: they apply to the host's own and to forwarded packets; those with users only to the host's
own. Packets with one of our marks are routed by their mark before; control groups are marked by
the programs on connect() (`plan.balance`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ifdefault.model.address import BITS, family_of, is_private
from ifdefault.model.config import Config, Family, HostConfig, OutgoingRule
from ifdefault.model.health import Decision
from ifdefault.model.kernel import (
    PROTOCOL,
    PROTOCOL_DHCP,
    PROTOCOL_RA,
    TABLE_MAIN,
    Facts,
    Route,
    Rule,
    Uplink,
)
from ifdefault.plan import numbers, prefixes, resolve, tables

_PROTOCOLS = {None: 0, "tcp": 6, "udp": 17}
_LEARNED = (PROTOCOL_RA, PROTOCOL_DHCP)
_OWN = "lo"  # iif of the host's own packets (ip-rule(8))


def rules(
    config: Config, uplinks: Iterable[Uplink], decision: Decision, family: Family
) -> tuple[Rule, ...]:
    """The rules of one family, in the order of the config: the first that matches a packet counts.
    A config rule is skipped if none of its uplinks has the family."""
    ready = {uplink.name: uplink for uplink in resolve.ready(tuple(uplinks), family)}
    works = decision.works_in(family)
    found: list[Rule] = []
    for setting in config.outgoing.rules:
        via = [ready[name] for name in setting.via if name in ready]
        if via and not setting.cgroups:
            uplink = next((uplink for uplink in via if uplink.name in works), via[-1])
            found += _policy_rules(setting, uplink, config.host, family)
    return tuple(dict.fromkeys(found))


def detours(
    host: HostConfig, facts: Facts, uplinks: Sequence[Uplink], decision: Decision, family: Family
) -> Iterator[Rule]:
    """DNS servers that have a route of their own through an uplink that is down are reached by the
    primary uplink instead. `uplinks`: best first."""
    for _, routes in routes_to_down(facts, uplinks, decision, family):
        for route in filter(is_dns_host_route, routes):
            yield from _policy_rules(
                OutgoingRule(via=(), to=(route.dst,)), uplinks[0], host, family
            )


def routes_to_down(
    facts: Facts, uplinks: Sequence[Uplink], decision: Decision, family: Family
) -> Iterator[tuple[str, Sequence[Route]]]:
    """Main's specific routes through routers of uplinks that are down, while another works, with
    the interface of each uplink."""
    works = decision.works_in(family)
    working = {u.interface for u in uplinks if u.name in works}
    down = {u.interface for u in uplinks} - working
    if not working or not down:
        return
    for hops, routes in tables.by_hops(tables.of(facts, family, TABLE_MAIN)):
        if hops and all(hop.gateway and hop.dev in down for hop in hops):
            yield hops[0].dev, [r for r in routes if r.kind == "unicast" and r.dst != "default"]


def is_dns_host_route(route: Route) -> bool:
    """Whether a route leads to one server on the Internet and was learned by DHCP, as
    systemd-networkd adds one for each DNS server (RoutesToDNS=)."""
    if route.protocol not in _LEARNED or prefixes.network(route.dst)[1] != BITS[route.family]:
        return False
    return not is_private(route.dst.partition("/")[0])


def _policy_rules(
    setting: OutgoingRule, uplink: Uplink, host: HostConfig, family: Family
) -> Iterator[Rule]:
    to = [prefix for prefix in setting.to if family_of(prefix) == family]
    if setting.to and not to:
        return
    proto = _PROTOCOLS[setting.transport]
    blank = Rule(family, numbers.OUTGOING, table=uplink.table, ip_proto=proto, protocol=PROTOCOL)
    selectors = (to or [""], setting.ports or [(0, 0)], setting.users or [-1])
    for prefix, dport, uid in itertools.product(*selectors):
        dst = prefix if prefixes.network(prefix)[1] else ""
        # for the kernel, forwarded packets are of user 0
        own = _OWN if setting.users else ""
        rule = replace(blank, dst=dst, dport=dport, uids=(uid, uid), iif=own)
        yield replace(rule, mask=_mask(rule, host))


def _mask(rule: Rule, host: HostConfig) -> int:
    """A mask that matches unmarked packets and is different for each set of selectors: the top bit,
    and a bit for each selector. When it deletes a rule, the kernel ignores selectors that the
    request leaves out, so it may delete another rule with more selectors; it does compare masks.
    """
    selectors = (rule.dst, rule.ip_proto, any(rule.dport), rule.uids != (-1, -1), True)
    return numbers.outgoing_mark(host, sum(1 << n for n, used in enumerate(selectors) if used))

"""The policy rules of `[[outgoing.rule]]`: what leaves by uplinks of its own.

Rules: the kernel carries them, for the host's own packets and for those that it forwards; those
that name users see the host's own alone. What has a mark of ours has been decided, and control
groups are the hook's business (`plan.balance`), which gives them one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ifdefault.model.address import family_of
from ifdefault.model.config import Config, Family, HostConfig, OutgoingRule
from ifdefault.model.health import Decision
from ifdefault.model.kernel import PROTOCOL, Rule, Uplink
from ifdefault.plan import numbers, prefixes, resolve

_PROTOCOLS = {None: 0, "tcp": 6, "udp": 17}
_OWN = "lo"  # to a rule, the device that the host's own packets come from (ip-rule(8))


def rules(
    config: Config, uplinks: Iterable[Uplink], decision: Decision, family: Family
) -> tuple[Rule, ...]:
    """Those of one family, in the order of the config: the kernel takes the first that selects a
    packet. A rule none of whose uplinks has the family is passed over."""
    ready = {uplink.name: uplink for uplink in resolve.ready(tuple(uplinks), family)}
    usable = decision.usable_in(family)
    found: list[Rule] = []
    for wanted in config.outgoing.rules:
        ways = [ready[name] for name in wanted.via if name in ready]
        if ways and not wanted.cgroups:
            way = next((uplink for uplink in ways if uplink.name in usable), ways[-1])
            found += _of(wanted, way, config.host, family)
    return tuple(dict.fromkeys(found))


def _of(wanted: OutgoingRule, way: Uplink, host: HostConfig, family: Family) -> Iterator[Rule]:
    to = [prefix for prefix in wanted.to if family_of(prefix) == family]
    if wanted.to and not to:
        return
    proto = _PROTOCOLS[wanted.transport]
    blank = Rule(family, numbers.OUTGOING, table=way.table, ip_proto=proto, protocol=PROTOCOL)
    selectors = (to or [""], wanted.ports or [(0, 0)], wanted.users or [-1])
    for prefix, dport, uid in itertools.product(*selectors):
        dst = prefix if prefixes.network(prefix)[1] else ""
        # forwarded packets, too, are user 0's to the kernel
        own = _OWN if wanted.users else ""
        rule = replace(blank, dst=dst, dport=dport, uids=(uid, uid), iif=own)
        yield replace(rule, mask=_mask(rule, host))


def _mask(rule: Rule, host: HostConfig) -> int:
    """The bits of which a packet has none, if it is nobody's yet: that of a choice, and one for
    each selector. Where the kernel deletes a rule, it takes what the rule doesn't select by for
    anything, and another rule that selects by more for the one that is meant; masks it compares.
    """
    selectors = (rule.dst, rule.ip_proto, any(rule.dport), rule.uids != (-1, -1), True)
    return numbers.outgoing_mark(host, sum(1 << n for n, there in enumerate(selectors) if there))

"""What happens to a packet besides routing: forwarding to a service, marks, address translation.

Rules: computed from the plan and the packet alone, as the rulesets and the eBPF programs would do
it. If it is balanced, the uplink with the greatest share is taken, and all shares are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ifdefault.model.address import family_of
from ifdefault.model.config import Family
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import Rule, Uplink
from ifdefault.plan import connmark, forward_table, lookup, numbers, servers
from ifdefault.plan.forward_table import Backend
from ifdefault.plan.prefixes import contains
from ifdefault.plan.prepare import Prepared

_TCP, _UDP = 6, 17  # IPPROTO_TCP, IPPROTO_UDP
Shares = tuple[tuple[Uplink, int], ...]  # in percent, the greatest first


@dataclass(frozen=True, slots=True)
class MarkedFlow:
    """A flow with the mark that it gets, and why."""

    flow: Flow
    why: str = ""


def service(prepared: Prepared, protocol: str, address: str, port: int) -> Backend | None:
    """The service that a connection to an address of the host belongs to."""
    usable = [u for u in prepared.uplinks if not u.pending]
    down = prepared.decision.servers_down
    return forward_table.target(prepared.config.forwards, usable, protocol, address, port, down)


def service_text(prepared: Prepared, target: Backend) -> str:
    """ "forward tcp:443: 10.0.0.10:443 (25 %), 10.0.0.11:8443 (75 %)"."""
    weights = [(servers.server_text((s.address, s.port)), s.weight) for s in target.servers]
    if target.refused:
        weights.append(("refused", target.refused))
    title = servers.title(prepared.config.forwards[target.number])
    if not target.servers:
        return f"forward {title}: no server is up, connections are refused"
    return f"forward {title}: {_percentages(weights)}"


def shares(prepared: Prepared, family: Family) -> Shares:
    """The uplinks that balance a family, and their shares; none if it isn't balanced."""
    hook = prepared.desired.hook
    slots = dict(hook.marks).get(family, ()) if hook else ()
    owners = {u.outgoing_mark: u for u in prepared.uplinks}
    by_share = sorted(Counter(slots).items(), key=lambda share: (-share[1], share[0]))
    return tuple((owners[mark], round(100 * n / len(slots))) for mark, n in by_share)


def shares_text(shares: Shares) -> str:
    return ", ".join(f"{uplink.name} {percent} %" for uplink, percent in shares)


def outgoing_flow(prepared: Prepared, flow: Flow) -> MarkedFlow:
    """A new connection of the host itself, from a socket without address, device or mark, or of a
    masqueraded LAN."""
    if why := matching_rule(prepared, flow):
        return MarkedFlow(flow, why)
    hook, members = prepared.desired.hook, shares(prepared, flow.family)
    kinds = (_TCP, _UDP) if hook and hook.udp else (_TCP,)
    if not hook or not members or flow.ip_proto not in kinds:
        return MarkedFlow(flow)
    unit, uplink = "destination address" if hook.sticky else "connection", members[0][0]
    filling = [u.name for u, _ in members if u.name in dict(prepared.decision.shares)]
    fill = "fills up" if len(filling) == 1 else "fill up"
    full = f" while {' and '.join(filling)} {fill}" if filling else ""
    why = f"balance: {shares_text(members)}{full}, picked for each {unit}; here as if {uplink.name}"
    return MarkedFlow(replace(flow, mark=uplink.outgoing_mark), why)


def forwarded_flow(prepared: Prepared, flow: Flow) -> MarkedFlow:
    """A forwarded packet, taken as the first of a connection, since nothing else is known."""
    if flow.iif in prepared.config.outgoing.masquerade:
        return outgoing_flow(prepared, flow)
    if flow.iif in {u.interface for u in prepared.uplinks} or not tracks_flows(prepared):
        return MarkedFlow(flow)
    why = "a new connection; replies to connections leave by the uplink that they came in on"
    return MarkedFlow(flow, why)


def masquerade_address(prepared: Prepared, flow: Flow, uplink: Uplink) -> str:
    """The source address that a forwarded packet gets on an uplink, "" if it keeps its own."""
    routed = [p for u in prepared.uplinks for p in u.routed if family_of(p) == flow.family]
    is_routed = any(contains(flow.family, prefix, flow.src) for prefix in routed)
    if flow.iif not in prepared.config.outgoing.masquerade or is_routed:
        return ""
    return uplink.source(flow.family) or ""


def tracks_flows(prepared: Prepared) -> bool:
    """Whether replies to forwarded connections leave by the uplink that they came in on."""
    return connmark.tracks_forwarded(prepared.config, prepared.facts)


def matching_rule(prepared: Prepared, flow: Flow) -> str:
    """The `[[outgoing.rule]]` that a flow matches, in words; "" if none."""
    for rule in _outgoing_rules(prepared):
        if lookup.matches(rule, flow):
            via = next((u.name for u in prepared.uplinks if u.table == rule.table), "")
            return f"outgoing.rule: matching connections leave by {via}"
    return ""


def _outgoing_rules(prepared: Prepared) -> Iterator[Rule]:
    """The policy rules made from `[[outgoing.rule]]`s."""
    for rule in prepared.desired.rules:
        selects = rule.dst or rule.ip_proto or rule.uids != (-1, -1)
        if rule.priority == numbers.OUTGOING and rule.mask and not rule.mark and selects:
            yield rule


def _percentages(weights: list[tuple[str, int]]) -> str:
    total = sum(weight for _, weight in weights)
    if len(weights) == 1:
        return weights[0][0]
    return ", ".join(f"{name} ({100 * weight / total:.0f} %)" for name, weight in weights)

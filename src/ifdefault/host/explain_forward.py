"""What becomes of a packet besides its route: services that it is forwarded to, marks that it is
given, addresses that it is given instead of its own.

Rules: told from the plan and the packet alone, as the rulesets and the hook would do it. Where lots
are drawn the first lot stands for all, and the shares are told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ifdefault.model.address import family_of
from ifdefault.model.config import Family
from ifdefault.model.kernel import Rule, Uplink
from ifdefault.plan import connmark, forward_table, lookup, numbers, servers
from ifdefault.plan.forward_table import Backend
from ifdefault.plan.lookup import Flow
from ifdefault.plan.prefixes import contains
from ifdefault.plan.prepare import Prepared

_TCP, _UDP = 6, 17  # IPPROTO_TCP, IPPROTO_UDP
Shares = tuple[tuple[Uplink, int], ...]  # in percent, the greatest first


@dataclass(frozen=True, slots=True)
class Passage:
    """A flow as it goes on, and why."""

    flow: Flow
    why: str = ""


def service(prepared: Prepared, protocol: str, address: str, port: int) -> Backend | None:
    """The service that a connection to an address of the host is for."""
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
        return f"forward {title}: no content server is left, it is refused"
    return f"forward {title}: {_percentages(weights)}"


def shares(prepared: Prepared, family: Family) -> Shares:
    """The members of the balance in a family; none where nothing is balanced."""
    hook = prepared.desired.hook
    slots = dict(hook.marks).get(family, ()) if hook else ()
    owners = {u.outgoing_mark: u for u in prepared.uplinks}
    counted = sorted(Counter(slots).items(), key=lambda share: (-share[1], share[0]))
    return tuple((owners[mark], round(100 * n / len(slots))) for mark, n in counted)


def shares_text(found: Shares) -> str:
    return ", ".join(f"{uplink.name} {percent} %" for uplink, percent in found)


def chosen(prepared: Prepared, flow: Flow) -> Passage:
    """A new connection of the host's own, from a socket that has neither address, device nor mark,
    or of a masqueraded LAN."""
    if found := _rule(prepared, flow):
        return Passage(flow, found)
    hook, members = prepared.desired.hook, shares(prepared, flow.family)
    kinds = (_TCP, _UDP) if hook and hook.udp else (_TCP,)
    if not hook or not members or flow.ip_proto not in kinds:
        return Passage(flow)
    each, uplink = "destination address" if hook.sticky else "connection", members[0][0]
    why = f"balance: {shares_text(members)}, drawn for each {each}; as if {uplink.name} were drawn"
    return Passage(replace(flow, mark=uplink.outgoing_mark), why)


def from_behind(prepared: Prepared, flow: Flow) -> Passage:
    """A packet that is forwarded; as one that begins a connection, which is all that it tells."""
    if flow.iif in prepared.config.outgoing.masquerade:
        return chosen(prepared, flow)
    if flow.iif in {u.interface for u in prepared.uplinks} or not follows(prepared):
        return Passage(flow)
    why = "a new connection; what came in over an uplink is answered over that uplink"
    return Passage(flow, why)


def translated(prepared: Prepared, flow: Flow, uplink: Uplink) -> str:
    """The address that a forwarded packet leaves an uplink with, "" if that is its own."""
    routed = [p for u in prepared.uplinks for p in u.routed if family_of(p) == flow.family]
    is_routed = any(contains(flow.family, prefix, flow.src) for prefix in routed)
    if flow.iif not in prepared.config.outgoing.masquerade or is_routed:
        return ""
    return uplink.source(flow.family) or ""


def follows(prepared: Prepared) -> bool:
    """Whether answers to what is forwarded leave by the uplink that it came in over."""
    return connmark.tracks_forwarded(prepared.config, prepared.facts)


def _rule(prepared: Prepared, flow: Flow) -> str:
    """The rule of the config that decides where a flow leaves, "" if none does."""
    for rule in _outgoing(prepared):
        if lookup.matches(rule, flow):
            via = next((u.name for u in prepared.uplinks if u.table == rule.table), "")
            return f"outgoing.rule: what it selects leaves by {via}"
    return ""


def _outgoing(prepared: Prepared) -> Iterator[Rule]:
    """The policy rules that `[[outgoing.rule]]`s have become."""
    for rule in prepared.desired.rules:
        selects = rule.dst or rule.ip_proto or rule.uids != (-1, -1)
        if rule.priority == numbers.OUTGOING and rule.mask and not rule.mark and selects:
            yield rule


def _percentages(weights: list[tuple[str, int]]) -> str:
    total = sum(weight for _, weight in weights)
    if len(weights) == 1:
        return weights[0][0]
    return ", ".join(f"{name} ({100 * weight / total:.0f} %)" for name, weight in weights)

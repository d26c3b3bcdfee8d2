"""What other programs' packet filters do with a packet to this host, or through it.

Rules: pure. A rule that can't be evaluated may match or not: all outcomes that are possible are
followed, and a packet counts as dropped only if every one of them is a drop. The packet is the
first of a connection, from an address and a port that no rule singles out: rules for a few known
clients don't open a port to everybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from ifdefault.model.config import Family, Transport
from ifdefault.model.packet_filter import Condition, FilterChain, FilterRule

_CLIENT_PORTS = (1024, 65535)  # what clients use (RFC 6056, 3.2)
_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?")
_NUMBERS = {"6": "tcp", "17": "udp"}
_NEXT, _END = "next", "end"  # of a rule's outcomes: the next rule, the end of the chain


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. `states`: what connection tracking may say of it;
    `statuses`: what else it says; `out_interface`: where it is forwarded to, "" if it isn't."""

    interface: str
    family: Family
    transport: Transport
    destination: str
    port: int
    states: tuple[str, ...] = ("new",)
    out_interface: str = ""
    statuses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """Where a packet is dropped. `base`: the chain that it came to; `chain`: the one with the rule;
    `rule` "": by the policy of `base`."""

    base: FilterChain
    chain: str
    rule: str


def dropped(chains: Iterable[FilterChain], packet: Packet) -> Drop | None:
    """Where a packet is certainly dropped."""
    tables: dict[tuple[str, str, str], dict[str, FilterChain]] = {}
    for chain in chains:
        tables.setdefault((chain.program, chain.family, chain.table), {})[chain.name] = chain
    of_family = [t for (_, family, _), t in tables.items() if _includes(family, packet.family)]
    untracked = any(_may_untrack(table.values(), packet) for table in of_family)
    states = ("new", "untracked") if untracked else ("new",)
    seen = replace(packet, states=states)
    for table in of_family:
        for base in (chain for chain in table.values() if chain.policy):
            outcomes = dict(_Walk(table, seen).chain(base.name))
            if outcomes.pop(_END, None):
                outcomes[base.policy] = (base.name, "")
            if set(outcomes) == {"drop"}:
                return Drop(base, *outcomes["drop"])
    return None


def _includes(table_family: str, family: Family) -> bool:
    return table_family == "inet" or table_family == {4: "ip", 6: "ip6"}[family]


def _may_untrack(chains: Iterable[FilterChain], packet: Packet) -> bool:
    """Whether a rule may exempt the packet from connection tracking."""
    rules = (rule for chain in chains for rule in chain.rules if rule.verdict == "notrack")
    return any(_matches(rule, packet) is not False for rule in rules)


_Outcomes = dict[str, tuple[str, str]]  # kind to (chain, rule), of the first rule that leads there


@dataclass(slots=True)
class _Walk:
    """A packet's way through the chains of one table."""

    table: dict[str, FilterChain]
    packet: Packet
    known: dict[str, _Outcomes] = field(default_factory=dict)

    def chain(self, name: str) -> _Outcomes:
        """All possible outcomes of a chain; _END: no rule decided."""
        if name not in self.known:
            self.known[name] = {"unknown": (name, "")}  # the kernel permits no loops
            self.known[name] = self._rules(self.table.get(name))
        return self.known[name]

    def _rules(self, chain: FilterChain | None) -> _Outcomes:
        if chain is None:
            return {"unknown": ("", "")}
        outcomes: _Outcomes = {}
        for rule in chain.rules:
            matches = _matches(rule, self.packet)
            if matches is False:
                continue
            decided = self._verdict(chain, rule)
            goes_on = decided.pop(_NEXT, None) is not None
            outcomes = {**decided, **outcomes}
            if matches and not goes_on:
                return outcomes
        return {_END: (chain.name, "")} | outcomes

    def _verdict(self, chain: FilterChain, rule: FilterRule) -> _Outcomes:
        at = (chain.name, rule.label)
        match rule.verdict:
            case "" | "notrack":
                return {_NEXT: at}
            case "return":
                return {_END: at}
            case "goto":
                return dict(self.chain(rule.target))
            case "jump":
                outcomes = dict(self.chain(rule.target))
                if outcomes.pop(_END, None):
                    outcomes[_NEXT] = at
                return outcomes
        return {rule.verdict: at}


# --- conditions ---------------------------------------------------------------------------


def _matches(rule: FilterRule, packet: Packet) -> bool | None:
    """Whether a rule matches; None: it depends on what isn't known."""
    results = [_is_met(condition, packet) for condition in rule.conditions]
    return False if False in results else None if None in results else True


def _is_met(condition: Condition, packet: Packet) -> bool | None:
    are_ports = condition.key in ("port", "source_port")
    if are_ports and not all(map(_PORTS.fullmatch, condition.values)):
        return None
    met = _is_one_of(condition, packet)
    return met if met is None else met != condition.negated


def _is_one_of(condition: Condition, packet: Packet) -> bool | None:
    values = condition.values
    match condition.key:
        case "interface" | "out_interface":
            name = packet.interface if condition.key == "interface" else packet.out_interface
            return any(_is_interface(name, value) for value in values) if name else None
        case "family":
            return str(packet.family) in values
        case "transport":
            return packet.transport in (_NUMBERS.get(value, value) for value in values)
        case "port":
            return any(first <= packet.port <= last for first, last in map(_range, values))
        case "source_port":
            return _covers(map(_range, values), *_CLIENT_PORTS)
        case "destination":
            return any(_contains(value, packet.destination) for value in values)
        case "source":
            return any(value.endswith("/0") for value in values)
        case "destination_type":
            return ("unicast" if packet.out_interface else "local") in values
        case "packet_type":
            return not {"host", "unicast"}.isdisjoint(values)
        case "ct_state":  # iptables counts DNAT as one
            return _any_of(packet.statuses, values) or _all_or_none(packet.states, values)
        case "ct_status":
            return _any_of(packet.statuses, values)
    return None


def _is_interface(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _covers(ranges: Iterable[tuple[int, int]], first: int, last: int) -> bool | None:
    """Whether ports from `first` to `last` are in one of the ranges; None: some of them, unless
    they are so few that a client hardly uses one of them."""
    overlaps = [(max(a, first), min(b, last)) for a, b in ranges if a <= last and b >= first]
    if (first, last) in overlaps:
        return True
    return None if any(a != b for a, b in overlaps) else False


def _contains(value: str, address: str) -> bool:
    own = ip_address(address)
    try:
        if "-" in value:
            first, last = map(ip_address, value.split("-"))
            return own.version == first.version and int(first) <= int(own) <= int(last)
        return own in ip_network(value, strict=False)
    except ValueError:
        return False


def _any_of(found: Sequence[str], values: Sequence[str]) -> bool:
    return not set(found).isdisjoint(values)


def _all_or_none(possible: Sequence[str], values: Sequence[str]) -> bool | None:
    hits = {state in values for state in possible}
    return hits.pop() if len(hits) == 1 else None

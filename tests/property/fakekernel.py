"""A kernel made of facts: it performs operations as the real one does, and refuses what it would.

Rules: a new rule stands behind those of its priority, and the first that has all that is named is
deleted; a route replaces that of its family, table, destination and metric; a host that forwards
IPv4 takes no redirects. What a sound plan never asks for (a stranger's route replaced, another rule
deleted than the one that is meant) is refused here, though the kernel would let it pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ifdefault.model.address import family_of
from ifdefault.model.config import Config
from ifdefault.model.kernel import (
    FORWARDING,
    PROTOCOL,
    TABLE_MAIN,
    AddRule,
    DeleteRoute,
    DeleteRule,
    Desired,
    Facts,
    ForgetFlows,
    LoadNft,
    NftTable,
    Operation,
    PutHook,
    PutRoute,
    Route,
    Rule,
    SetGroup,
    SetSysctl,
    ruleset_digest,
)
from ifdefault.model.mptcp import (
    ENDPOINTS_MAX,
    DeleteEndpoint,
    MptcpState,
    PutEndpoint,
    SetMptcpLimit,
)
from ifdefault.plan import numbers, prefixes
from ifdefault.plan.desired import Plan, plan
from ifdefault.plan.diff import diff, record_tables
from ifdefault.plan.settings import REDIRECTS


class Refused(AssertionError):
    """The kernel, or good manners, would not let this pass."""


def perform(facts: Facts, operation: Operation) -> Facts:
    """The facts after one operation."""
    match operation:
        case SetSysctl(name, value, was):
            now = dict(facts.sysctls)
            _insist(now.get(name) == was or name == REDIRECTS, operation)
            with_it = {REDIRECTS: str(1 - int(value))} if name == FORWARDING[4] else {}
            return replace(facts, sysctls=tuple((now | {name: value} | with_it).items()))
        case SetGroup(dev, group, was):
            _insist(any(link.name == dev and link.group == was for link in facts.links), operation)
            links = (replace(k, group=group) if k.name == dev else k for k in facts.links)
            return replace(facts, links=tuple(links))
        case PutRoute(route, _):
            _insist(_acceptable(facts, route), operation)
            kept = tuple(r for r in facts.routes if _key(r) != _key(route))
            replaced = set(facts.routes) - set(kept)
            _insist(all(r.protocol == PROTOCOL for r in replaced), operation)
            return replace(facts, routes=(*kept, route))
        case DeleteRoute(route):
            _insist(route.protocol == PROTOCOL and route in facts.routes, operation)
            return replace(facts, routes=tuple(r for r in facts.routes if r != route))
        case AddRule(rule):
            _insist(rule.action != "goto" or rule.goto > rule.priority, operation)
            return replace(facts, rules=_with_rule(facts.rules, rule))
        case DeleteRule(rule):
            _insist(rule.protocol == PROTOCOL and rule in facts.rules, operation)
            first = next(n for n, other in enumerate(facts.rules) if _deletes(rule, other))
            _insist(facts.rules[first] == rule, operation)
            return replace(facts, rules=facts.rules[:first] + facts.rules[first + 1 :])
        case LoadNft(name, text):
            tables = {other: table for other, table in facts.tables if other != name}
            if text:
                digest = ruleset_digest(text)
                tables[name] = NftTable(digest, f"listing of {digest}")
            return replace(facts, tables=tuple(sorted(tables.items())))
        case PutHook(wanted):
            return replace(facts, hook=wanted)
        case ForgetFlows():
            return facts
        case SetMptcpLimit() | PutEndpoint() | DeleteEndpoint():
            assert facts.mptcp is not None
            return replace(facts, mptcp=_with_mptcp(facts.mptcp, operation))


def _with_mptcp(
    state: MptcpState, operation: SetMptcpLimit | PutEndpoint | DeleteEndpoint
) -> MptcpState:
    match operation:
        case SetMptcpLimit(name, value, was):
            _insist(dict(state.limits)[name] == was, operation)
            return replace(state, limits=tuple((dict(state.limits) | {name: value}).items()))
        case PutEndpoint(endpoint, was):
            _insist(endpoint.ours and (was is None or was in state.endpoints), operation)
            others = tuple(e for e in state.endpoints if e != was)
            taken = any(e.id == endpoint.id or e.address == endpoint.address for e in others)
            _insist(not taken and len(others) < ENDPOINTS_MAX, operation)
            return replace(state, endpoints=tuple(sorted((*others, endpoint))))
        case DeleteEndpoint(endpoint):
            _insist((endpoint.ours or endpoint.implicit) and endpoint in state.endpoints, operation)
            return replace(state, endpoints=tuple(e for e in state.endpoints if e != endpoint))


def _insist(sound: bool, operation: Operation) -> None:
    if not sound:
        raise Refused(str(operation))


def _key(route: Route) -> tuple[int, int, str, int]:
    return route.family, route.table, route.dst, route.metric


def _with_rule(rules: tuple[Rule, ...], new: Rule) -> tuple[Rule, ...]:
    """Both families stand in one tuple, IPv4 first, each in its kernel order."""
    behind = sum((r.family, r.priority) <= (new.family, new.priority) for r in rules)
    return (*rules[:behind], new, *rules[behind:])


_ALWAYS = ("family", "priority", "action")  # what the kernel always compares


def _deletes(rule: Rule, other: Rule) -> bool:
    """Whether the kernel takes `other` for this one where it deletes: what a rule doesn't select by
    is anything to it (net/core/fib_rules.c, rule_find)."""
    blank = Rule(rule.family, rule.priority)
    return all(
        getattr(rule, name) == getattr(other, name)
        or (name not in _ALWAYS and getattr(rule, name) == getattr(blank, name))
        for name in Rule.__slots__
    )


def _acceptable(facts: Facts, route: Route) -> bool:
    """Whether the route's devices are up, its source is ours and its next hop can be reached."""
    up = {link.name for link in facts.links if link.up}
    known = {a.address for a in facts.addresses if not a.tentative}
    if not all(hop.dev in up for hop in route.hops) or (route.src and route.src not in known):
        return False
    return all(
        hop.onlink or not hop.gateway or _on_link(facts, route, hop.gateway, hop.dev)
        for hop in route.hops
    )


def _on_link(facts: Facts, route: Route, gateway: str, dev: str) -> bool:
    family = family_of(gateway)
    if family == 6 and prefixes.contains(6, "fe80::/10", gateway):
        return True
    return any(
        r.family == family
        and r.table in (TABLE_MAIN, route.table)
        and any(hop.dev == dev and not hop.gateway for hop in r.hops)
        and prefixes.contains(family, r.dst, gateway)
        for r in facts.routes
    )


# --- whole plans --------------------------------------------------------------------------


def planned(config: Config, facts: Facts, known: dict[str, int] | None = None) -> Plan:
    return plan(config, facts, numbers.assign([u.name for u in config.uplinks], known or {}))


def operations(facts: Facts, desired: Desired) -> tuple[Operation, ...]:
    return diff(facts, desired, record_tables(facts, desired))


def steps(facts: Facts, todo: Iterable[Operation]) -> Iterable[Facts]:
    """The facts before the first operation, and after each."""
    yield facts
    for operation in todo:
        facts = perform(facts, operation)
        yield facts


def settle(facts: Facts, desired: Desired) -> Facts:
    """The facts after all operations."""
    *_, last = steps(facts, operations(facts, desired))
    return last

"""The operations that lead from facts to the desired state, in an order without interruptions.

Rules: add before delete, except MPTCP's endpoints, which change once the rules stand. Link groups,
sysctls and routes come first, then the rules that lead to them, then nftables, then forwarding;
objects are deleted in the reverse order. Only our own objects (by protocol number, table, name or
id) are replaced or deleted. diff(x, x) is empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ifdefault.model.address import family_of
from ifdefault.model.kernel import (
    FORWARDING,
    NFT_TABLE,
    OWN_TABLES,
    PROTOCOL,
    AddRule,
    DeleteRoute,
    DeleteRule,
    Desired,
    Facts,
    ForgetFlows,
    Loaded,
    LoadNft,
    Operation,
    PutHook,
    PutRoute,
    Route,
    Rule,
    Ruleset,
    SetGroup,
    SetSysctl,
    ruleset_digest,
)
from ifdefault.model.mptcp import (
    DeleteEndpoint,
    Endpoint,
    MptcpState,
    PutEndpoint,
    SetMptcpLimit,
)
from ifdefault.plan.numbers import OUTGOING
from ifdefault.plan.settings import REDIRECTS


def diff(facts: Facts, desired: Desired, loaded: Loaded) -> tuple[Operation, ...]:
    """The operations that change `facts` into `desired`, in order. An nft table that differs from
    `loaded` (it was edited, or isn't recorded) is loaded again."""
    put, drop_routes = _routes(facts, desired)
    add, drop_rules = _rules(facts, desired)
    on, off = _settings(facts, desired)
    enable, disable = _forwarding(facts, desired)
    tables = tuple(_tables(facts, desired, loaded))
    early, late = _mptcp(facts, desired)
    return (
        *disable,
        *early,
        *on,
        *put,
        *add,
        *tables,
        *enable,
        *_hook(facts, desired),
        *drop_rules,
        *_forget_flows(desired, tables),
        *late,
        *drop_routes,
        *off,
    )


def own_routes(facts: Facts) -> tuple[Route, ...]:
    return tuple(r for r in facts.routes if r.protocol == PROTOCOL)


def own_rules(facts: Facts) -> tuple[Rule, ...]:
    return tuple(r for r in facts.rules if r.protocol == PROTOCOL)


def own_endpoints(facts: Facts) -> tuple[Endpoint, ...]:
    return tuple(e for e in facts.mptcp.endpoints if e.ours) if facts.mptcp else ()


def record_tables(facts: Facts, desired: Desired) -> Loaded:
    """The nft tables of `desired` as the kernel has them, to recognise later changes."""
    tables = dict(facts.tables)
    return tuple(
        (name, Ruleset(text, tables[name]))
        for name, text in desired.tables
        if name in tables and tables[name].digest == ruleset_digest(text)
    )


def _key(route: Route) -> tuple[int, int, str, int]:
    return route.family, route.table, route.dst, route.metric


def _routes(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    current = {_key(route): route for route in own_routes(facts)}
    wanted = {_key(route): route for route in desired.routes}
    # on-link routes first: a gateway must be reachable when its route is added
    ordered = sorted(wanted.values(), key=lambda r: (any(h.gateway for h in r.hops), r))
    put: list[Operation] = [
        PutRoute(route, current.get(_key(route)))
        for route in ordered
        if current.get(_key(route)) != route
    ]
    obsolete = [route for key, route in current.items() if key not in wanted]
    obsolete.sort(key=lambda r: (not any(h.gateway for h in r.hops), r))
    return put, [DeleteRoute(route) for route in obsolete]


def _add_order(rule: Rule) -> int:
    """Order within a new block: the target of goto first, then the rules for local routes, then
    those that reroute packets; the outgoing rules last, in their final order."""
    if rule.priority == OUTGOING:
        return 7
    if rule.action == "nop":
        return 0
    if rule.suppress_ifgroup >= 0:
        return 1
    if rule.action == "goto":
        return 2
    if rule.action == "unreachable":
        return 6
    return 3 if rule.mask else 4 if rule.src else 5


def _rules(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    """At each outgoing priority the common prefix stays; the rest is added again, then deleted.

    The kernel inserts a new rule after those of its priority and deletes the first that matches, so
    a rule that must move exists twice for a moment, and is never missing.
    """
    current, wanted = _by_priority(own_rules(facts)), _by_priority(desired.rules)
    add: list[Rule] = []
    drop: list[Rule] = []
    for key in sorted(current.keys() | wanted.keys()):
        old, new = current.get(key, []), wanted.get(key, [])
        if key[1] == OUTGOING:
            same = _common_prefix(old, new)
            add += new[same:]
            # last first: marked packets mustn't match the old primary's rule before their own
            drop += reversed(old[same:])
        else:  # rules of the same priority are mutually exclusive: order doesn't matter
            present, kept = set(old), set(new)
            add += [rule for rule in new if rule not in present]
            drop += [rule for rule in old if rule not in kept]
            drop += _repeated([rule for rule in old if rule in kept])
    add.sort(key=_add_order)
    drop.sort(key=_add_order, reverse=True)
    return [AddRule(rule) for rule in add], [DeleteRule(rule) for rule in drop]


def _by_priority(rules: tuple[Rule, ...]) -> dict[tuple[int, int], list[Rule]]:
    by_priority: dict[tuple[int, int], list[Rule]] = {}
    for rule in rules:
        by_priority.setdefault((rule.family, rule.priority), []).append(rule)
    return by_priority


def _common_prefix(old: list[Rule], new: list[Rule]) -> int:
    """How many rules may stay. One that is repeated later may not: deleting the later one would
    delete it instead."""
    same = 0
    for present, wanted in zip(old, new, strict=False):
        if present != wanted or present in old[same + 1 :]:
            break
        same += 1
    return same


def _repeated(rules: list[Rule]) -> list[Rule]:
    extra = Counter(rules)
    extra.subtract(set(rules))
    return list(extra.elements())


def _tables(facts: Facts, desired: Desired, loaded: Loaded) -> Iterator[LoadNft]:
    current, wanted, recorded = dict(facts.tables), dict(desired.tables), dict(loaded)
    for name in OWN_TABLES:
        if name in wanted:
            expected = recorded.get(name)
            intact = name in current and expected == Ruleset(wanted[name], current[name])
            if not intact:
                yield LoadNft(name, wanted[name])
        elif name in current and current[name].digest:  # without a digest it isn't ours
            yield LoadNft(name, "")


def _hook(facts: Facts, desired: Desired) -> Iterator[Operation]:
    if facts.hook != desired.hook:
        yield PutHook(desired.hook)


def _mptcp(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    """What comes before the rules go, as peers are told by them, and what comes once they stand.

    Endpoints are deleted first: an address may move to another id, and there are few. One that the
    kernel made for an address of ours gives way, since it wouldn't accept the address otherwise.
    IPv6 is first, always: see _ipv6_first."""
    state = facts.mptcp or MptcpState()
    current = {endpoint.id: endpoint for endpoint in own_endpoints(facts)}
    kept = {e.id: current[e.id] for e in desired.endpoints if _differs_in_flags(current, e)}
    new = {endpoint.address for endpoint in desired.endpoints if endpoint.id not in kept}
    obsolete = [endpoint for id_, endpoint in current.items() if id_ not in kept]
    obsolete += [e for e in state.endpoints if e.implicit and e.address in new]
    now = dict(state.limits)
    operations: list[Operation] = [
        *(
            SetMptcpLimit(name, value, now[name])
            for name, value in desired.mptcp_limits
            if now.get(name, value) != value
        ),
        *map(DeleteEndpoint, sorted(obsolete, key=_ipv6_first)),
        *(
            PutEndpoint(endpoint, kept.get(endpoint.id))
            for endpoint in sorted(desired.endpoints, key=_ipv6_first)
            if kept.get(endpoint.id) != endpoint
        ),
    ]
    return ([], operations) if desired.rules else (operations, [])


def _ipv6_first(endpoint: Endpoint) -> int:
    """A key for the order in which peers are told.

    A connection that began by IPv6 has subflows of both families, in the order of the endpoints.
    Linux tells its peer of a removed address over the first subflow that isn't of this address,
    once, and has no notion of its being dead. If that is one of the same uplink, the peer is never
    told and goes on using it. So another uplink's IPv6 subflow precedes all by IPv4, and is the
    first once the one over which the connection began is removed."""
    return -family_of(endpoint.address)


def _differs_in_flags(current: Mapping[int, Endpoint], wanted: Endpoint) -> bool:
    """Whether at most that differs which the kernel can change."""
    now = current.get(wanted.id)
    return now is not None and replace(now, backup=wanted.backup) == wanted


def _forget_flows(desired: Desired, tables: tuple[LoadNft, ...]) -> Iterator[Operation]:
    """Right after the last rule has changed the primary, since the kernel then replies from another
    address; the first time as well, as the host may already have tracked flows."""
    if desired.redirects and any(load.table == NFT_TABLE for load in tables):
        ports, addresses = desired.udp_ports, desired.udp_addresses
        yield ForgetFlows(desired.redirects, ports, addresses, desired.mark_mask)


def _settings(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    """Sysctls and link groups: those to set come first, those to reset come last."""
    now = dict(facts.sysctls)
    groups = {link.name: link.group for link in facts.links}
    # the group that our rules use; any other is an interface's original group
    own_groups = {rule.suppress_ifgroup for rule in desired.rules}
    on: list[Operation] = []
    off: list[Operation] = []
    for dev, group in desired.groups:
        if dev in groups and groups[dev] != group:
            (on if group in own_groups else off).append(SetGroup(dev, group, groups[dev]))
    for name, value in desired.sysctls:
        if name in now and now[name] != value and name not in FORWARDING.values():
            lower = value in ("0", "1") and value < now[name]
            (off if lower else on).append(SetSysctl(name, value, now[name]))
    return on, off


def _forwarding(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    """Forwarding is on only while chain guard_internal exists and accept_ra is 2 on uplinks:
    otherwise the kernel would delete the default routes that it learned from advertisements."""
    now, wanted = dict(facts.sysctls), dict(desired.sysctls)
    on: list[Operation] = []
    off: list[Operation] = []
    for name in FORWARDING.values():
        value = wanted.get(name, "")
        if name in now and value and value != now[name]:
            (off if value == "0" else on).append(SetSysctl(name, value, now[name]))
            if name == FORWARDING[4] and value == "0" == wanted.get(REDIRECTS, now.get(REDIRECTS)):
                off.append(SetSysctl(REDIRECTS, "0", now[REDIRECTS]))  # the kernel sets it to 1
    return on, off

"""From facts to desired: the operations, in an order that leaves no gap.

Rules: new before old. Link groups, sysctls and routes come first, then the rules that lead to
them, then nftables, then forwarding; what is no longer wanted goes in the reverse order. Only what
is ours (protocol number, table, name) is ever replaced or deleted. diff(x, x) is empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

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
from ifdefault.plan.numbers import OUTGOING
from ifdefault.plan.settings import REDIRECTS


def diff(facts: Facts, desired: Desired, loaded: Loaded) -> tuple[Operation, ...]:
    """The operations that make `facts` into `desired`. An nft table that isn't as in `loaded`, be
    it edited by a stranger or forgotten by us, is loaded again."""
    put, drop_routes = _routes(facts, desired)
    add, drop_rules = _rules(facts, desired)
    on, off = _settings(facts, desired)
    opened, shut = _forwarding(facts, desired)
    tables = tuple(_tables(facts, desired, loaded))
    return (
        *shut,
        *on,
        *put,
        *add,
        *tables,
        *opened,
        *_hook(facts, desired),
        *drop_rules,
        *_forgetting(desired, tables),
        *drop_routes,
        *off,
    )


def own_routes(facts: Facts) -> tuple[Route, ...]:
    return tuple(r for r in facts.routes if r.protocol == PROTOCOL)


def own_rules(facts: Facts) -> tuple[Rule, ...]:
    return tuple(r for r in facts.rules if r.protocol == PROTOCOL)


def record_tables(facts: Facts, desired: Desired) -> Loaded:
    """The nft tables of `desired` as the kernel holds them, to be known again."""
    there = dict(facts.tables)
    return tuple(
        (name, Ruleset(text, there[name]))
        for name, text in desired.tables
        if name in there and there[name].digest == ruleset_digest(text)
    )


def _key(route: Route) -> tuple[int, int, str, int]:
    return route.family, route.table, route.dst, route.metric


def _routes(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    there = {_key(route): route for route in own_routes(facts)}
    wanted = {_key(route): route for route in desired.routes}
    # on-link routes first: a gateway must be reachable when its route is added
    ordered = sorted(wanted.values(), key=lambda r: (any(h.gateway for h in r.hops), r))
    put: list[Operation] = [
        PutRoute(route, there.get(_key(route)))
        for route in ordered
        if there.get(_key(route)) != route
    ]
    gone = [route for key, route in there.items() if key not in wanted]
    gone.sort(key=lambda r: (not any(h.gateway for h in r.hops), r))
    return put, [DeleteRoute(route) for route in gone]


def _add_order(rule: Rule) -> int:
    """Within a new block: the landing place first, then what protects local routes, then what
    bends packets; the outgoing rules last, in the order in which they must stand."""
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
    """At each priority the common beginning stays; the rest is added anew, then deleted.

    The kernel puts a new rule behind those of its priority and deletes the first that matches,
    so a rule that must move stands twice for a moment, and never not at all.
    """
    there, wanted = _by_priority(own_rules(facts)), _by_priority(desired.rules)
    add: list[Rule] = []
    drop: list[Rule] = []
    for place in sorted(there.keys() | wanted.keys()):
        old, new = there.get(place, []), wanted.get(place, [])
        if place[1] == OUTGOING:
            same = _common_beginning(old, new)
            add += new[same:]
            # from behind: a mark must not meet the old default before its own new rule
            drop += reversed(old[same:])
        else:  # rules of one priority exclude one another there: order doesn't matter
            here, stay = set(old), set(new)
            add += [rule for rule in new if rule not in here]
            drop += [rule for rule in old if rule not in stay]
            drop += _repeated([rule for rule in old if rule in stay])
    add.sort(key=_add_order)
    drop.sort(key=_add_order, reverse=True)
    return [AddRule(rule) for rule in add], [DeleteRule(rule) for rule in drop]


def _by_priority(rules: tuple[Rule, ...]) -> dict[tuple[int, int], list[Rule]]:
    found: dict[tuple[int, int], list[Rule]] = {}
    for rule in rules:
        found.setdefault((rule.family, rule.priority), []).append(rule)
    return found


def _common_beginning(old: list[Rule], new: list[Rule]) -> int:
    """How many rules may stay where they are. One that is there again further on may not: to
    delete that would delete this."""
    same = 0
    for one, other in zip(old, new, strict=False):
        if one != other or one in old[same + 1 :]:
            break
        same += 1
    return same


def _repeated(rules: list[Rule]) -> list[Rule]:
    extra = Counter(rules)
    extra.subtract(set(rules))
    return list(extra.elements())


def _tables(facts: Facts, desired: Desired, loaded: Loaded) -> Iterator[LoadNft]:
    there, wanted, known = dict(facts.tables), dict(desired.tables), dict(loaded)
    for name in OWN_TABLES:
        if name in wanted:
            intact = name in there and known.get(name) == Ruleset(wanted[name], there[name])
            if not intact:
                yield LoadNft(name, wanted[name])
        elif name in there and there[name].digest:  # one without is a stranger's
            yield LoadNft(name, "")


def _hook(facts: Facts, desired: Desired) -> Iterator[Operation]:
    if facts.hook != desired.hook:
        yield PutHook(desired.hook)


def _forgetting(desired: Desired, tables: tuple[LoadNft, ...]) -> Iterator[Operation]:
    """Right after the last rule has moved the default, since the kernel then answers from another
    address; the first time, too: the host may have tracked flows before us."""
    if desired.redirects and any(load.table == NFT_TABLE for load in tables):
        ports, addresses = desired.udp_ports, desired.udp_addresses
        yield ForgetFlows(desired.redirects, ports, addresses, desired.mark_mask)


def _settings(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    """Sysctls and link groups: those to turn on come first, those to put back come last."""
    now = dict(facts.sysctls)
    groups = {link.name: link.group for link in facts.links}
    # a rule of ours looks for this group; any other is an interface's own, put back
    ours = {rule.suppress_ifgroup for rule in desired.rules}
    on: list[Operation] = []
    off: list[Operation] = []
    for dev, group in desired.groups:
        if dev in groups and groups[dev] != group:
            (on if group in ours else off).append(SetGroup(dev, group, groups[dev]))
    for name, value in desired.sysctls:
        if name in now and now[name] != value and name not in FORWARDING.values():
            lower = value in ("0", "1") and value < now[name]
            (off if lower else on).append(SetSysctl(name, value, now[name]))
    return on, off


def _forwarding(facts: Facts, desired: Desired) -> tuple[list[Operation], list[Operation]]:
    """The host forwards only while there is a fence, and while its uplinks are told to accept
    routers' advertisements all the same: else it would forget the defaults that it learned."""
    now, wanted = dict(facts.sysctls), dict(desired.sysctls)
    on: list[Operation] = []
    off: list[Operation] = []
    for name in FORWARDING.values():
        value = wanted.get(name, "")
        if name in now and value and value != now[name]:
            (off if value == "0" else on).append(SetSysctl(name, value, now[name]))
            if name == FORWARDING[4] and value == "0" == wanted.get(REDIRECTS, now.get(REDIRECTS)):
                off.append(SetSysctl(REDIRECTS, "0", now[REDIRECTS]))  # the kernel made it 1
    return on, off

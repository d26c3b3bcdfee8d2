"""Whether packets go where they are meant to: what to ask of a route lookup, and what is wrong.

    config, uplinks, desired ──questions──> Question ──the kernel's lookup, or ours──> RouteReply
    Question, RouteReply ──find──> Problem: which rule or route does it, whose it is, what to do

What is meant: a packet to an uplink's address is delivered to this host; replies from it leave by
its uplink; between the host's own addresses packets stay local; new outgoing connections use the
primary uplink; packets of forwarded connections leave by the uplink that they came in on; every
family of an uplink has a default route.

Rules: pure. Foreign rules that route outgoing connections into a VPN are meant: they may precede
ours. So are routes to specific networks, and specific routes that refuse packets.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

from ifdefault.model.address import BITS, is_private
from ifdefault.model.config import FAMILIES, Config, Family
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Answers, Flow, Intent, Question, RouteReply
from ifdefault.model.health import Decision
from ifdefault.model.kernel import (
    FORWARDING,
    PROTOCOL,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    Desired,
    Facts,
    Route,
    Uplink,
)
from ifdefault.model.many import Many
from ifdefault.plan import connmark, lookup, numbers, outgoing_rules, prefixes, tables
from ifdefault.plan.describe import route_text, rule_text, table_name
from ifdefault.plan.lookup import REFUSALS, Fib, LookupResult, matches
from ifdefault.plan.rule_block import first_priority

VITAL: frozenset[Intent] = frozenset(("input", "own", "reply"))  # a host is lost without them
_TCP = 6
_LANS = 8  # this many are asked about
_ALIKE = 16  # likewise, of the addresses of an uplink that no rule of others tells apart
_NAMED = 3  # of routes that are wrong in one way


# --- what to ask --------------------------------------------------------------------------


def questions(
    config: Config, facts: Facts, uplinks: Sequence[Uplink], desired: Desired
) -> tuple[Question, ...]:
    """What to ask of a lookup when the kernel is as desired."""
    found: list[Question] = []
    for family in FAMILIES:
        ready = [u for u in uplinks if not u.pending and u.gateway(family) is not None]
        if ready and (far := elsewhere(family, facts)):
            found += _of_addresses(family, _told_apart(family, ready, facts), far)
            found += _of_connections(family, ready, far, desired)
            found += _of_forwarding(config, family, facts, ready, far, desired)
    return tuple(found)


def _told_apart(
    family: Family, uplinks: Sequence[Uplink], facts: Facts
) -> list[tuple[Uplink, str]]:
    """Addresses of the uplinks: of very many that no rule of others tells apart, the first ones,
    and those that are sources of default routes."""
    by_rules: dict[int, set[int]] = {}
    for rule in facts.rules:
        for prefix in (rule.src, rule.dst) if rule.protocol != PROTOCOL else ():
            if prefix and rule.family == family:
                first, length = prefixes.network(prefix)
                by_rules.setdefault(length, set()).add(first)
    alike: Counter[tuple[str, tuple[tuple[int, int], ...]]] = Counter()
    found = []
    for u in uplinks:
        for address in (a.address for a in u.addresses if a.family == family):
            kind = u.name, _covering(family, by_rules, address)
            alike[kind] += 1
            if alike[kind] <= _ALIKE or address == u.source(family):
                found.append((u, address))
    return found


def _of_addresses(
    family: Family, own: Sequence[tuple[Uplink, str]], far: Sequence[str]
) -> Iterator[Question]:
    for n, (u, address) in enumerate(own):
        mark = 0 if u.mechanism == "source" else u.arrival_mark
        came_in = Flow(family, address, far[0], iif=u.interface, mark=mark, ip_proto=_TCP)
        yield Question("input", u.name, came_in)
        for dst in far:
            reply = Flow(family, dst, address, mark=mark, ip_proto=_TCP)
            yield Question("reply", u.name, reply, u.interface, u.gateway(family) or "")
        _, other = own[n - 1]
        yield Question("own", u.name, Flow(family, other, address, ip_proto=_TCP))


def _of_connections(
    family: Family, uplinks: Sequence[Uplink], far: Sequence[str], desired: Desired
) -> Iterator[Question]:
    """New outgoing connections: unmarked ones, and those that are balanced."""
    rules = [r for r in desired.rules if (r.family, r.priority) == (family, numbers.OUTGOING)]
    by_table = {u.table: u for u in uplinks}
    interfaces = tuple(sorted({u.interface for u in uplinks}))
    for dst in far:
        flow = Flow(family, dst, ip_proto=_TCP)
        tables = (rule.table for rule in rules if matches(rule, flow))
        if u := next((by_table[table] for table in tables if table in by_table), None):
            way = (u.interface, u.gateway(family) or "", u.table)
            yield Question("outgoing", u.name, flow, *way, others=interfaces)
    if desired.hook:
        for u in uplinks:
            flow = Flow(family, far[0], mark=u.outgoing_mark, ip_proto=_TCP)
            way = (u.interface, u.gateway(family) or "", u.table)
            yield Question("balanced", u.name, flow, *way, others=interfaces)


def _of_forwarding(
    config: Config,
    family: Family,
    facts: Facts,
    uplinks: Sequence[Uplink],
    far: Sequence[str],
    desired: Desired,
) -> Iterator[Question]:
    """Packets from a LAN that belong to a connection that came in over an uplink."""
    sysctls = dict(facts.sysctls) | dict(desired.sysctls)
    if sysctls.get(FORWARDING[family]) != "1" or not connmark.tracks_forwarded(config, facts):
        return
    forwarding = {link.name for link in facts.links if family == 6 or link.forwards}
    for lan, host in _lans(family, facts, forwarding - {u.interface for u in uplinks}):
        for u in (u for u in uplinks if u.interface in forwarding):
            flow = Flow(family, far[0], host, iif=lan, mark=u.arrival_mark, ip_proto=_TCP)
            yield Question("forwarded", u.name, flow, u.interface, u.gateway(family) or "")


def _lans(family: Family, facts: Facts, interfaces: set[str]) -> list[tuple[str, str]]:
    """Some of these interfaces, each with the address of a host behind it."""
    vrfs = {link.index for link in facts.links if link.kind == "vrf"}
    candidates = {
        link.name
        for link in facts.links
        if link.up and not link.loopback and not vrfs & {link.index, link.master}
    } & interfaces
    lans: dict[str, str] = {}
    own = {address.address for address in facts.addresses}
    for address in facts.addresses:
        dev = address.dev
        if address.family != family or address.scope >= 253 or dev not in candidates or dev in lans:
            continue
        if host := _neighbour(address, own):
            lans[dev] = host
    return sorted(lans.items())[:_LANS]


def _neighbour(address: Address, own: set[str]) -> str:
    """The first address of an interface's network that isn't ours, "" if there is none."""
    family = address.family
    first, length = prefixes.network(f"{address.address}/{address.prefixlen}")
    last = first + (1 << (BITS[family] - length)) - 1
    for number in range(first + 1, min(last, first + 1 + len(own) + 1)):
        if (text := prefixes.text(family, number)) not in own:
            return text
    return ""


def elsewhere(family: Family, facts: Facts) -> tuple[str, ...]:
    """Addresses to which only default routes lead: one, and one for each network so large that it
    is part of a default rather than a specific network (as the halves 0/1 and 128/1 of a VPN).
    None where specific routes lead everywhere."""
    wide, specific = _foreign_prefixes(family, facts)
    most = 1 + sum(map(len, wide.values()))
    samples: dict[tuple[tuple[int, int], ...], str] = {}
    for address in _samples(family):
        covering = _covering(family, wide, address)
        if covering not in samples and not _covering(family, specific, address):
            samples[covering] = address
            if len(samples) == most:
                break
    return tuple(samples.values())


_Lengths = Mapping[int, set[int]]  # prefix length to the first addresses of prefixes


def _foreign_prefixes(family: Family, facts: Facts) -> tuple[_Lengths, _Lengths]:
    """The destinations of foreign rules and routes: parts of a default, and specific networks."""
    wide: dict[int, set[int]] = {}
    specific: dict[int, set[int]] = {}
    for (of, _), routes in tables.by_table(facts).items():
        for (length, refuses), firsts in _foreign(routes).items() if of == family else ():
            short = numbers.PARTS_OF_DEFAULT if refuses else numbers.SHORTEST_LOCAL
            which = specific if length > short[family] else wide
            which.setdefault(length, set()).update(firsts)
    for rule in facts.rules:
        if rule.family == family and rule.dst and rule.protocol != PROTOCOL and not rule.invert:
            first, length = prefixes.network(rule.dst)
            which = specific if length > numbers.SHORTEST_LOCAL[family] else wide
            which.setdefault(length, set()).add(first)
    return wide, specific


@functools.lru_cache(maxsize=4)
def _foreign(routes: Many[Route]) -> Mapping[tuple[int, bool], set[int]]:
    """The first addresses of the destinations of others' routes but defaults, by prefix length and
    whether packets are refused."""
    found: dict[tuple[int, bool], set[int]] = {}
    for route in routes:
        first, length = prefixes.network(route.dst)
        if length and route.protocol != PROTOCOL:
            found.setdefault((length, route.kind in REFUSALS), set()).add(first)
    return found


def _covering(family: Family, lengths: _Lengths, address: str) -> tuple[tuple[int, int], ...]:
    """The prefixes that contain an address, as (length, first address)."""
    return tuple(prefixes.covering(lengths, prefixes.number(address), BITS[family]))


def _samples(family: Family) -> Iterator[str]:
    """Addresses all over the Internet's part of the address space."""
    if family == 4:
        for n in (*range(1, 10), *range(11, 100), *range(128, 169), *range(173, 192), 210):
            yield f"{n}.{n}.0.9"
    else:
        yield from (f"{n:x}:0:0:9::9" for n in range(0x2003, 0x3FFF, 0x41))


# --- what is wrong ------------------------------------------------------------------------


def ask(fib: Fib, asked: Iterable[Question]) -> Answers:
    """The answers of our lookup."""
    return tuple((question, as_reply(fib.lookup(question.flow))) for question in asked)


def predicted(config: Config, facts: Facts, desired: Desired) -> Facts:
    """The facts once the kernel is as desired."""
    own, groups = numbers.own_tables(config.host), dict(desired.groups)
    return lookup.predict(facts, own, desired.routes, desired.rules, groups)


def as_reply(result: LookupResult) -> RouteReply:
    """The result of our lookup in the form of the kernel's."""
    if result.hop is None or result.kind != "unicast":
        return RouteReply(result.kind)
    table = result.route.table if result.route else 0
    return RouteReply("unicast", result.hop.dev, result.hop.gateway, table, result.source)


def find(
    config: Config,
    facts: Facts,
    uplinks: Sequence[Uplink],
    answers: Answers,
    decision: Decision | None = None,
) -> tuple[Problem, ...]:
    """What isn't as meant in the kernel, which is as in `facts`."""
    return (
        *misrouted(config, facts, answers),
        *_without_default(facts, uplinks),
        *_routes_to_down(facts, uplinks, decision or Decision()),
    )


# --- packets that go astray ---------------------------------------------------------------


def misrouted(config: Config, facts: Facts, answers: Answers) -> tuple[Problem, ...]:
    """The answers that aren't as meant, with the rule or route that does it by our lookup.
    Questions that differ only in the address are one problem."""
    # a link without carrier is the failure itself (and has no route by ignore_routes_with_linkdown)
    live = {"", *(link.name for link in facts.links if link.up and link.carrier)}
    unmet = [(q, reply) for q, reply in answers if q.dev in live and not q.is_met(reply)]
    if not unmet:
        return ()
    fib, end = Fib.of(facts), first_priority(config, facts) + numbers.END
    wrong = [(q.intent, q.uplink, _culprit(q, reply, fib, end), reply, q) for q, reply in unmet]
    wrong.sort(key=lambda entry: entry[:3])
    problems = []
    for (_, uplink, (what, remedy)), group in groupby(wrong, key=lambda entry: entry[:3]):
        (*_, reply, question), *rest = group
        addresses = {q.flow.src for *_, q in rest} - {question.flow.src}
        noun = "address" if len(addresses) == 1 else "addresses"
        more = f" (and {len(addresses)} more {noun})" if addresses else ""
        text = f"{_meant(question)}{more}, but {_instead(question, reply)}: {what}"
        problems.append(Problem(f"uplink.{uplink}", text, remedy, blocks=False))
    return tuple(problems)


def _meant(question: Question) -> str:
    flow, family = question.flow, f"IPv{question.flow.family}"
    match question.intent:
        case "input":
            return f"packets to {flow.dst} are meant for this host"
        case "own":
            return f"packets from {flow.src} to {flow.dst} are meant for this host"
        case "reply":
            return f"replies from {flow.src} are meant to leave by {question.dev}"
        case "forwarded":
            return (
                f"forwarded {family} packets from {flow.iif} are meant to return by {question.dev}"
            )
        case "balanced":
            return f"{family} connections balanced to {question.uplink} are meant to leave by it"
        case _:
            return f"new {family} connections are meant to leave by {question.dev}"


def _instead(question: Question, reply: RouteReply) -> str:
    if reply.kind != "unicast":
        verb = {"local": "stay on this host", "unreachable": "have no route"}
        return verb.get(reply.kind, f"are refused ({reply.kind})")
    if (reply.dev, reply.gateway) == (question.dev, question.gateway):
        return f"another table decides, {table_name(reply.table)}"
    via = f" via {reply.gateway}" if reply.gateway and reply.dev == question.dev else ""
    return f"leave by {reply.dev}{via}"


def _culprit(question: Question, reply: RouteReply, fib: Fib, end: int) -> tuple[str, str]:
    """The rule or route that takes the packet, and the remedy."""
    result = fib.lookup(question.flow)
    ours = as_reply(result)
    # what came in is refused where this host doesn't forward
    refused = bool(question.flow.iif) and ours.kind == "unicast" and reply.kind in REFUSALS
    same = (ours.kind, ours.dev, ours.gateway) == (reply.kind, reply.dev, reply.gateway)
    if not same and not refused:
        return "by nothing that ifdefault can see", "see ip rule and ip route get"
    rule, route = result.rule, result.route
    if rule is None:
        return "no rule has a route for them", "run ifdefault apply"
    six = " -6" if rule.family == 6 else ""
    if rule.protocol != PROTOCOL and rule.table != TABLE_LOCAL and rule.priority < numbers.MAIN:
        place = f"ip{six} rule {rule_text(rule)}"
        if question.intent in ("outgoing", "balanced"):
            command = f"ip{six} rule del {rule_text(rule)}"
            return place, f"another program's; run `{command}` if the primary uplink is to be used"
        if not question.dev:
            return place, "another program's; give it a priority greater than that of table local"
        return place, f"another program's; give it a priority greater than {end}"
    if route is not None and route.protocol != PROTOCOL:
        text = route_text(route)
        return f"ip{six} route {text}", f"another program's; run `ip{six} route del {text}`"
    return f"ip{six} rule {rule_text(rule)}", "run ifdefault apply"


# --- what needs no lookup -----------------------------------------------------------------


def _without_default(facts: Facts, uplinks: Sequence[Uplink]) -> Iterator[Problem]:
    """Uplinks that have addresses in a family, but no default route. A family whose default is by
    another device, such as a tunnel, is meant to be so."""
    interfaces = {u.interface for u in uplinks}
    for u in uplinks:
        for family in FAMILIES:
            if _has_default_elsewhere(facts, family, interfaces):
                continue
            own = (a for a in u.addresses if a.family == family and not a.deprecated)
            addresses = [a.address for a in own if not is_private(a.address)]
            if addresses and not u.pending and u.gateway(family) is None:
                what = f"{u.interface} has no IPv{family} default route for {', '.join(addresses)}"
                remedy = f"renew it (DHCP, router advertisement), or set uplink.{u.name}.gateways"
                yield Problem(f"uplink.{u.name}", what, remedy, blocks=False)


def _has_default_elsewhere(facts: Facts, family: Family, interfaces: set[str]) -> bool:
    return any(
        (route.family, route.table) == (family, TABLE_MAIN)
        and any(hop.dev not in interfaces for hop in route.hops)
        for route in tables.defaults(facts)
    )


def _routes_to_down(
    facts: Facts, uplinks: Sequence[Uplink], decision: Decision
) -> Iterator[Problem]:
    """Specific routes that lead to an uplink that is down, and that we don't override."""
    for family in FAMILIES:
        ready = [u for u in uplinks if not u.pending and u.gateway(family) is not None]
        by_uplink: dict[str, list[Route]] = {}
        for dev, routes in outgoing_rules.routes_to_down(facts, ready, decision, family):
            name = next(u.name for u in ready if u.interface == dev)
            others = (route for route in routes if not outgoing_rules.is_dns_host_route(route))
            by_uplink.setdefault(name, []).extend(islice(others, _NAMED + 1))
        for name, some in by_uplink.items():
            for route in some[:_NAMED]:
                ip, text = f"ip{' -6' if family == 6 else ''} route", route_text(route)
                where, what = f"{ip} {text}", f"leads to {name}, which isn't used now"
                remedy = f"run `{ip} del {text}` if the other uplinks are to reach {route.dst}"
                yield Problem(where, what, remedy, warning=True)
            if len(some) > _NAMED:
                where = f"ip{' -6' if family == 6 else ''} route show dev {some[0].hops[0].dev}"
                what, remedy = f"shows more that lead to {name}", "the same goes for them"
                yield Problem(where, what, remedy, warning=True)

"""Judge what the DNS was found to say: every problem, with who has it, and what would be right.

Rules: pure: from what was asked and answered alone. A fault has an owner: the parent, a server, an
uplink that doesn't lead to it, or this host. What others are free to do is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ifdefault.dns.delegation import delegate, glue, told
from ifdefault.dns.survey import Alias, Exchange, QueryResult, ZoneServer, ZoneSurvey
from ifdefault.model.dns import NameConfig, within
from ifdefault.model.errors import Problem

_HERE = "this host: "
_CNAME, _ADDRESSES = 5, (1, 28)
_LONG_S = 24 * 3600  # of a delegation: many parents set a day or two
_LONG_LINK_S = 3600  # of a CNAME
_SERVED = "the daemon publishes it: see `ifdefault dns`"


@dataclass(frozen=True, slots=True)
class Truth:
    """What is so. `own`: this host's addresses, with their uplinks; `published`: what the daemon
    says now of each name, where one runs."""

    own: Mapping[str, str]
    published: Mapping[str, frozenset[str]] = field(default_factory=dict)


def judge(found: ZoneSurvey, truth: Truth) -> list[Problem]:
    problems = [*_delegation(found, truth), *_servers(found), *_serials(found)]
    for name in found.wanted.names:
        problems += _name(found, name, truth)
    return problems


# --- the delegation -----------------------------------------------------------------------


def _delegation(found: ZoneSurvey, truth: Truth) -> Iterator[Problem]:
    if found.delegation is None:
        yield from _undelegated(found)
    else:
        yield from _sets(found)
        yield from _glue(found)
        yield from _unfound(found)
        yield from _spread(found, truth)
        yield from _parent(found)
    yield from _own_sets(found)


def _undelegated(found: ZoneSurvey) -> Iterator[Problem]:
    zone, reply, parent = found.zone, found.end.reply, _called(found.end.zone)
    if reply is None:
        what = f"no server of {parent} answers, so that nobody finds it"
        yield Problem(zone, what, "see the path above")
    elif reply.find(zone, "SOA") is None and zone != found.end.zone:
        said = " (no such name)" if reply.code == "NXDOMAIN" else ""
        if link := reply.find(zone, "CNAME"):
            said = f" (a CNAME to {link.values[0]} is there)"
        add = f"add there: {told(delegate(found.wanted))}" if found.wanted.embedded else ""
        remedy = add or f"have it delegated there, or write {parent} as the zone"
        yield Problem(zone, f"{parent} doesn't delegate it{said}", remedy)


def _sets(found: ZoneSurvey) -> Iterator[Problem]:
    """The parent's NS records beside those that should be there: ours, or the zone's own."""
    given = found.delegation
    assert given is not None
    expected = {host for host, _ in found.wanted.nameservers} or _child_set(found)
    parent, there = _called(given.parent), set(given.hosts)
    if not expected:
        return
    if missing := sorted(expected - there):
        lines = [line for line in delegate(found.wanted) if {line[0], line[2][:-1]} & {*missing}]
        lines = lines or [(found.zone, "NS", f"{host}.") for host in missing]
        what = f"{parent} doesn't name {_and(missing)} among its name servers"
        yield Problem(found.zone, what, f"add there: {told(lines)}")
    if extra := sorted(there - expected):
        what = f"{parent} names {_and(extra)} as name server{'s'[: len(extra) > 1]}"
        remedy = "let it serve the zone and be named by it, or remove it there"
        if found.wanted.embedded:
            remedy = "remove it there, or add it to dns.server.nameservers"
        yield Problem(found.zone, f"{what}, the zone itself doesn't", remedy)


def _child_set(found: ZoneSurvey) -> set[str]:
    replies = (reply for question, reply in found.exchanges if question.type == "NS")
    sets = (rrset for reply in replies if reply.is_good and (rrset := reply.find(found.zone, "NS")))
    return {host for rrset in sets for host in rrset.values}


def _own_sets(found: ZoneSurvey) -> Iterator[Problem]:
    """What servers of our zone say of its name servers."""
    expected = {host for host, _ in found.wanted.nameservers}
    others: dict[str, set[str]] = {}
    for server in found.servers if expected else ():
        for _, reply in found.replies(server, found.zone, "NS"):
            rrset = reply.find(found.zone, "NS")
            if reply.is_good and rrset and set(rrset.values) != expected:
                others.setdefault(_and(rrset.values), set()).add(server.address)
    for hosts, addresses in others.items():
        what = f"has the NS records {hosts}, not {_and(expected)}"
        remedy = "let the daemon take in the config: `ifdefault reload`"
        yield Problem(f"{found.zone} at {_and(addresses)}", what, remedy)


def _glue(found: ZoneSurvey) -> Iterator[Problem]:
    given = found.delegation
    assert given is not None
    parent, ours = _called(given.parent), dict(found.wanted.nameservers)
    is_served = any(_serves(found, reply) for _, reply in found.exchanges)
    for host in given.hosts if is_served else ():
        right = set(ours.get(host, ())) or _looked_up(found, host)
        there = set(given.glue_of(host))
        if not within(host, found.zone) or there == right:
            continue
        add = told(glue(host, sorted(right - there)))
        if not there:
            what = f"{parent} gives no glue for {host}"
            remedy = f"add there: {add}" if add else "add there its A or AAAA records"
        elif not right:
            what = f"{parent} has glue for {host}, of which the zone knows no address"
            remedy = f"let the zone have {told(glue(host, sorted(there)))}, or remove it there"
        else:
            wrong = sorted(there - right)
            what = f"{parent} gives {_and(there)} for {host}, which is {_and(right)}"
            parts = [f"remove there: {told(glue(host, wrong))}"] if wrong else []
            remedy = "; ".join([*parts, *([f"add there: {add}"] if add else [])])
        yield Problem(found.zone, what, remedy)


def _unfound(found: ZoneSurvey) -> Iterator[Problem]:
    """Name servers elsewhere that are only names."""
    given = found.delegation
    assert given is not None
    known = {server.host for server in found.servers}
    for host in given.hosts:
        if host not in known and not within(host, found.zone):
            yield Problem(found.zone, f"no address is found of its name server {host}")


def _looked_up(found: ZoneSurvey, name: str) -> set[str]:
    """A name's addresses, as the zone's servers say."""
    kinds = ("A", "AAAA")
    return {
        address
        for question, reply in found.exchanges
        if question.name == name and question.type in kinds and reply.is_good
        if (rrset := reply.find(name, question.type))
        for address in rrset.values
    }


def _spread(found: ZoneSurvey, truth: Truth) -> Iterator[Problem]:
    """Whether one dead uplink makes the whole zone unreachable."""
    given = found.delegation
    assert given is not None
    if not found.wanted.embedded:
        return
    named = (server for server in found.servers if server.host in given.hosts)
    uplinks = {truth.own.get(server.address, "") for server in named}
    if uplinks and "" not in uplinks and len(uplinks) < 2:
        what = f"its name servers are all reached by {_and(uplinks)}, with which the zone dies"
        yield Problem(found.zone, what, "name one of another uplink, or one elsewhere")


def _parent(found: ZoneSurvey) -> Iterator[Problem]:
    """What the parent says beside names and addresses. Of others' zones that is theirs to say."""
    given = found.delegation
    assert given is not None
    if not found.wanted.embedded:
        return
    if found.signed:
        what = f"{_called(given.parent)} has a DS record for it, but it isn't signed"
        yield Problem(found.zone, what, "remove that record, or validating resolvers know nothing")
    ttl_s = max((given.ttl, *(rrset.ttl for rrset in given.glue)))
    if ttl_s > _LONG_S:
        what = f"{_called(given.parent)} has its delegation kept for {ttl_s} s"
        remedy = "shorten it there if you may: an uplink's new address is known as late as that"
        yield Problem(found.zone, what, remedy, warning=True)


# --- its servers --------------------------------------------------------------------------


def _servers(found: ZoneSurvey) -> Iterator[Problem]:
    local: dict[str, list[str]] = {}  # what this host couldn't do, by cause
    for server in found.servers:
        asked = found.replies(server, found.zone, "SOA")
        for question, reply in asked:
            if reply.is_local:
                over = f" over {question.uplink}" if question.uplink else ""
                many = local.setdefault(f"{reply.error.removeprefix(_HERE)}{over}", [])
                many += [server.address] if server.address not in many else []
        yield from _server(found, server, [(q, r) for q, r in asked if not r.is_local])
    for error, addresses in local.items():
        yield Problem("this host", f"{error}: {_and(addresses)} couldn't be asked", warning=True)


def _server(found: ZoneSurvey, server: ZoneServer, asked: list[Exchange]) -> Iterator[Problem]:
    ways = dict.fromkeys(question.uplink for question, _ in asked)
    heard = [(question, reply) for question, reply in asked if not reply.error]
    where, given = f"{found.zone} at {server}", found.delegation
    named = given is not None and server.host in given.hosts
    out = "take it out of the NS records" if named else "take it out of the config"
    if not heard:
        if asked:
            own = found.wanted.embedded and "" in ways
            remedy = "start the daemon: `ifdefault run`" if own else f"start it, or {out}"
            yield Problem(where, f"doesn't answer ({_and({r.error for _, r in asked})})", remedy)
        return
    met = {question.uplink for question, _ in heard}
    for way in ways:
        if way not in met:
            said = _and({reply.error for question, reply in asked if question.uplink == way})
            remedy = f"see what filters it, or why {way} doesn't lead there"
            yield Problem(where, f"can't be reached over {way} ({said})", remedy)
    by_udp = [question.uplink for question, _ in heard if not question.tcp]
    by_tcp = [question.uplink for question, _ in heard if question.tcp]
    for one, other, has, lacks in (
        (by_udp, by_tcp, "UDP", "TCP"),
        (by_tcp, by_udp, "TCP", "UDP"),
    ):
        if ways_without := [way for way in one if way not in other]:
            over = f" over {_and(ways_without)}" if any(ways_without) else ""
            remedy = f"let {lacks} port {server.port} in, resolvers need both (RFC 7766)"
            yield Problem(where, f"answers by {has} and not by {lacks}{over}", remedy)
    if lame := next((reply for _, reply in heard if not _serves(found, reply)), None):
        said = lame.code if lame.code != "NOERROR" else "without authority"
        yield Problem(where, f"is lame: it answers {said}", f"let it serve the zone, or {out}")


def _serves(found: ZoneSurvey, reply: QueryResult) -> bool:
    return reply.is_good and reply.find(found.zone, "SOA") is not None


def _serials(found: ZoneSurvey) -> Iterator[Problem]:
    serials: dict[ZoneServer, int] = {}
    for server in found.servers:
        for _, reply in found.replies(server, found.zone, "SOA"):
            if _serves(found, reply) and (soa := reply.find(found.zone, "SOA")):
                serials.setdefault(server, int(soa.values[0].split()[2]))
    for server, serial in serials.items():
        ahead = [s for s in serials if 0 < (serials[s] - serial) % (1 << 32) < 1 << 31]  # RFC 1982
        if ahead:
            newest = max(ahead, key=lambda s: (serials[s] - serial) % (1 << 32))
            what = f"is stale: its serial {serial} is behind {serials[newest]} of {newest}"
            remedy = "see why it doesn't transfer the zone: NOTIFY, who may, and with which key"
            yield Problem(f"{found.zone} at {server}", what, remedy)


# --- names --------------------------------------------------------------------------------


def _name(found: ZoneSurvey, name: NameConfig, truth: Truth) -> Iterator[Problem]:
    """What servers say of a name; the same of several is one problem."""
    faults: dict[tuple[str, str, bool], list[str]] = {}
    asked = 0
    for server in found.servers:
        replies = [r for kind in ("A", "AAAA") for _, r in found.replies(server, name.name, kind)]
        asked += bool(replies)
        for fault in _said(found, name, replies, truth) if replies else ():
            faults.setdefault(fault, []).append(server.address)
    for (what, remedy, warning), addresses in faults.items():
        at = f" at {_and(addresses)}" if len(addresses) < asked else ""
        yield Problem(f"{name.name}{at}", what, remedy, warning)


def _said(
    found: ZoneSurvey, name: NameConfig, replies: list[QueryResult], truth: Truth
) -> Iterator[tuple[str, str, bool]]:
    """What is wrong with one server's answers: what, the remedy, and whether it is a warning."""
    if failed := next((r for r in replies if not r.is_good), None):
        yield failed.error or f"answers {failed.code}", "see what its log says", False
        return
    if link := next((rrset for r in replies if (rrset := r.find(name.name, "CNAME"))), None):
        if any(record.type == _CNAME for record in name.records):
            return
        yield f"is a CNAME to {link.values[0]}", "remove that: it is to have addresses", False
        return
    sets = [rrset for r in replies for rrset in r.answer if rrset.name == name.name]
    there = {address for rrset in sets for address in rrset.values}
    known = truth.published.get(name.name)
    if not there:
        if name.uplinks != () and known != frozenset():
            missing = "no such name" if replies[0].code == "NXDOMAIN" else "it has no address"
            yield missing, _SERVED, False
        return
    fixed = {str(ip_address(r.rdata)) for r in name.records if r.type in _ADDRESSES}
    ours, others = there & set(truth.own), sorted(there - set(truth.own) - fixed)
    if not ours and not fixed:
        yield f"leads to {_and(others)} and to no uplink of this host", _SERVED, False
    elif others:
        what = f"leads to {_and(others)} too, which no uplink of this host has"
        remedy = "remove that" if found.wanted.embedded else "remove that, unless a host shares it"
        yield what, remedy, not found.wanted.embedded
    if known is not None and (stale := sorted(ours - known)):
        shown = _and(f"{address} ({truth.own[address]})" for address in stale)
        yield f"still leads to {shown}, which isn't published now", _SERVED, False
    ttl_s = max(rrset.ttl for rrset in sets)
    if ttl_s > name.ttl:
        what = f"has a TTL of {ttl_s} s, {name.ttl} s is wanted"
        yield what, "a dead uplink is named for so long; let the server keep our TTL", False


def judge_alias(alias: Alias, truth: Truth, names: Iterable[str]) -> Iterator[Problem]:
    """What is wrong with a name of somebody else that is to lead here."""
    ours = tuple(names)
    there = {address for rrset in alias.addresses for address in rrset.values}
    remedy = f"make it a CNAME to {_or(ours)}" if ours else ""
    if alias.target not in ours:
        if not there:
            yield Problem(alias.name, f"leads nowhere ({alias.told})", remedy)
        elif strange := sorted(there - set(truth.own)):
            yield Problem(alias.name, f"leads to {_and(strange)}, which no uplink has", remedy)
        else:
            what = f"has the addresses {_and(there)} fixed, so that it names dead uplinks too"
            yield Problem(alias.name, what, remedy)
    for link in alias.links:
        if link.ttl > _LONG_LINK_S:
            what = f"its CNAME to {link.values[0]} is kept for {link.ttl} s"
            remedy = "shorten it: whoever has it follows it as long as that"
            yield Problem(link.name, what, remedy, warning=True)


def _called(zone: str) -> str:
    return zone or "the root"


def _and(texts: Iterable[str]) -> str:
    return ", ".join(sorted(texts))


def _or(texts: Iterable[str]) -> str:
    return " or ".join(texts)

"""Find the problems of a surveyed zone, with their owner and a remedy.

Rules: pure; the only inputs are queries and replies. A problem has an owner: the parent, a server,
an uplink that doesn't reach it, or this host. What other operators may do as they like is a
warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ifdefault.dns.delegation import delegate, glue, one_line
from ifdefault.dns.survey import Alias, Exchange, QueryResult, ZoneServer, ZoneSurvey
from ifdefault.model.dns import NameConfig, within
from ifdefault.model.errors import Problem

_HERE = "this host: "
_CNAME, _ADDRESSES = 5, (1, 28)
_LONG_TTL_S = 24 * 3600  # of a delegation: many parents have one or two days
_LONG_CNAME_TTL_S = 3600
_SEE_DNS = "the daemon publishes it: see `ifdefault dns`"


@dataclass(frozen=True, slots=True)
class LocalState:
    """The state of this host. `own`: its addresses, with their uplinks; `published`: the addresses
    of each name that the daemon publishes now, if it runs."""

    own: Mapping[str, str]
    published: Mapping[str, frozenset[str]] = field(default_factory=dict)


def diagnose(survey: ZoneSurvey, host: LocalState) -> list[Problem]:
    problems = [*_delegation(survey, host), *_servers(survey), *_serials(survey)]
    for name in survey.wanted.names:
        problems += _name(survey, name, host)
    return problems


# --- the delegation -----------------------------------------------------------------------


def _delegation(survey: ZoneSurvey, host: LocalState) -> Iterator[Problem]:
    if survey.delegation is None:
        yield from _undelegated(survey)
    else:
        yield from _ns_records(survey)
        yield from _glue(survey)
        yield from _unresolvable(survey)
        yield from _single_uplink(survey, host)
        yield from _parent_records(survey)
    yield from _zone_ns_records(survey)


def _undelegated(survey: ZoneSurvey) -> Iterator[Problem]:
    zone, reply, parent = survey.zone, survey.end.reply, _zone_title(survey.end.zone)
    if reply is None:
        what = f"no server of {parent} answers, so it can't be resolved"
        yield Problem(zone, what, "see the path above")
    elif reply.find(zone, "SOA") is None and zone != survey.end.zone:
        reason = " (no such name)" if reply.code == "NXDOMAIN" else ""
        if link := reply.find(zone, "CNAME"):
            reason = f" (a CNAME to {link.values[0]} is there)"
        add = f"add there: {one_line(delegate(survey.wanted))}" if survey.wanted.embedded else ""
        remedy = add or f"delegate it there, or use {parent} as the zone"
        yield Problem(zone, f"{parent} doesn't delegate it{reason}", remedy)


def _ns_records(survey: ZoneSurvey) -> Iterator[Problem]:
    """Compare the parent's NS records with those that should exist: ours, or the zone's own."""
    delegation = survey.delegation
    assert delegation is not None
    expected = {host for host, _ in survey.wanted.nameservers} or _child_set(survey)
    parent, actual = _zone_title(delegation.parent), set(delegation.hosts)
    if not expected:
        return
    if missing := sorted(expected - actual):
        lines = [line for line in delegate(survey.wanted) if {line[0], line[2][:-1]} & {*missing}]
        lines = lines or [(survey.zone, "NS", f"{host}.") for host in missing]
        what = f"{parent} doesn't name {_and(missing)} among its name servers"
        yield Problem(survey.zone, what, f"add there: {one_line(lines)}")
    if extra := sorted(actual - expected):
        what = f"{parent} names {_and(extra)} as name server{'s'[: len(extra) > 1]}"
        remedy = "make it serve the zone and add it to the NS records, or remove it there"
        if survey.wanted.embedded:
            remedy = "remove it there, or add it to dns.server.nameservers"
        yield Problem(survey.zone, f"{what}, but the zone doesn't", remedy)


def _child_set(survey: ZoneSurvey) -> set[str]:
    replies = (reply for question, reply in survey.exchanges if question.type == "NS")
    sets = (
        rrset for reply in replies if reply.is_good and (rrset := reply.find(survey.zone, "NS"))
    )
    return {host for rrset in sets for host in rrset.values}


def _zone_ns_records(survey: ZoneSurvey) -> Iterator[Problem]:
    """The NS records that the servers of our zone have."""
    expected = {host for host, _ in survey.wanted.nameservers}
    others: dict[str, set[str]] = {}
    for server in survey.servers if expected else ():
        for _, reply in survey.replies(server, survey.zone, "NS"):
            rrset = reply.find(survey.zone, "NS")
            if reply.is_good and rrset and set(rrset.values) != expected:
                others.setdefault(_and(rrset.values), set()).add(server.address)
    for hosts, addresses in others.items():
        what = f"has the NS records {hosts}, not {_and(expected)}"
        remedy = "reload the config: `ifdefault reload`"
        yield Problem(f"{survey.zone} at {_and(addresses)}", what, remedy)


def _glue(survey: ZoneSurvey) -> Iterator[Problem]:
    delegation = survey.delegation
    assert delegation is not None
    parent, ours = _zone_title(delegation.parent), dict(survey.wanted.nameservers)
    is_served = any(_serves(survey, reply) for _, reply in survey.exchanges)
    for host in delegation.hosts if is_served else ():
        expected = set(ours.get(host, ())) or _addresses_of(survey, host)
        actual = set(delegation.glue_of(host))
        if not within(host, survey.zone) or actual == expected:
            continue
        add = one_line(glue(host, sorted(expected - actual)))
        if not actual:
            what = f"{parent} gives no glue for {host}"
            remedy = f"add there: {add}" if add else "add its A or AAAA records there"
        elif not expected:
            what = f"{parent} has glue for {host}, which has no address in the zone"
            remedy = f"add {one_line(glue(host, sorted(actual)))} to the zone, or remove it there"
        else:
            wrong = sorted(actual - expected)
            what = f"{parent} gives {_and(actual)} for {host}, which is {_and(expected)}"
            parts = [f"remove there: {one_line(glue(host, wrong))}"] if wrong else []
            remedy = "; ".join([*parts, *([f"add there: {add}"] if add else [])])
        yield Problem(survey.zone, what, remedy)


def _unresolvable(survey: ZoneSurvey) -> Iterator[Problem]:
    """Name servers in other zones that have no address."""
    delegation = survey.delegation
    assert delegation is not None
    known = {server.host for server in survey.servers}
    for host in delegation.hosts:
        if host not in known and not within(host, survey.zone):
            what = f"its name server {host} has no address"
            yield Problem(survey.zone, what, "add an address record for it")


def _addresses_of(survey: ZoneSurvey, name: str) -> set[str]:
    """A name's addresses by the zone's servers."""
    kinds = ("A", "AAAA")
    return {
        address
        for question, reply in survey.exchanges
        if question.name == name and question.type in kinds and reply.is_good
        if (rrset := reply.find(name, question.type))
        for address in rrset.values
    }


def _single_uplink(survey: ZoneSurvey, host: LocalState) -> Iterator[Problem]:
    """Whether the failure of one uplink makes the whole zone unreachable."""
    delegation = survey.delegation
    assert delegation is not None
    if not survey.wanted.embedded:
        return
    named = (server for server in survey.servers if server.host in delegation.hosts)
    uplinks = {host.own.get(server.address, "") for server in named}
    if uplinks and "" not in uplinks and len(uplinks) < 2:
        what = f"all its name servers are on {_and(uplinks)}, so the zone fails with that uplink"
        yield Problem(survey.zone, what, "add a name server on another uplink, or elsewhere")


def _parent_records(survey: ZoneSurvey) -> Iterator[Problem]:
    """Other records of the parent; only for the embedded server's zones."""
    delegation = survey.delegation
    assert delegation is not None
    if not survey.wanted.embedded:
        return
    if survey.signed:
        what = f"{_zone_title(delegation.parent)} has a DS record for it, but it isn't signed"
        yield Problem(
            survey.zone, what, "remove that record; validating resolvers can't resolve the zone"
        )
    ttl_s = max((delegation.ttl, *(rrset.ttl for rrset in delegation.glue)))
    if ttl_s > _LONG_TTL_S:
        what = f"{_zone_title(delegation.parent)} has a TTL of {ttl_s} s for its delegation"
        remedy = (
            "lower it there if possible: a new address of an uplink takes that long to be known"
        )
        yield Problem(survey.zone, what, remedy, warning=True)


# --- its servers --------------------------------------------------------------------------


def _servers(survey: ZoneSurvey) -> Iterator[Problem]:
    local_errors: dict[str, list[str]] = {}  # cause to addresses
    for server in survey.servers:
        exchanges = survey.replies(server, survey.zone, "SOA")
        for question, reply in exchanges:
            if reply.is_local:
                over = f" over {question.uplink}" if question.uplink else ""
                many = local_errors.setdefault(f"{reply.error.removeprefix(_HERE)}{over}", [])
                many += [server.address] if server.address not in many else []
        yield from _server(survey, server, [(q, r) for q, r in exchanges if not r.is_local])
    for error, addresses in local_errors.items():
        what = f"{error}: {_and(addresses)} couldn't be queried"
        yield Problem("this host", what, "see ifdefault status", warning=True)


def _server(survey: ZoneSurvey, server: ZoneServer, exchanges: list[Exchange]) -> Iterator[Problem]:
    ways = dict.fromkeys(question.uplink for question, _ in exchanges)
    answered = [(question, reply) for question, reply in exchanges if not reply.error]
    where, delegation = f"{survey.zone} at {server}", survey.delegation
    named = delegation is not None and server.host in delegation.hosts
    remove = "remove it from the NS records" if named else "remove it from the config"
    if not answered:
        if exchanges:
            own = survey.wanted.embedded and "" in ways
            remedy = "start the daemon: `ifdefault run`" if own else f"start it, or {remove}"
            yield Problem(
                where, f"doesn't answer ({_and({r.error for _, r in exchanges})})", remedy
            )
        return
    ways_answered = {question.uplink for question, _ in answered}
    for way in ways:
        if way not in ways_answered:
            errors = _and({reply.error for question, reply in exchanges if question.uplink == way})
            remedy = f"check for a filter, or why {way} doesn't reach it"
            yield Problem(where, f"can't be reached over {way} ({errors})", remedy)
    by_udp = [question.uplink for question, _ in answered if not question.tcp]
    by_tcp = [question.uplink for question, _ in answered if question.tcp]
    for one, other, has, lacks in (
        (by_udp, by_tcp, "UDP", "TCP"),
        (by_tcp, by_udp, "TCP", "UDP"),
    ):
        if ways_without := [way for way in one if way not in other]:
            over = f" over {_and(ways_without)}" if any(ways_without) else ""
            remedy = f"open {lacks} port {server.port}; resolvers need both (RFC 7766)"
            yield Problem(where, f"answers by {has}, but not by {lacks}{over}", remedy)
    if lame := next((reply for _, reply in answered if not _serves(survey, reply)), None):
        how = lame.code if lame.code != "NOERROR" else "without authority"
        yield Problem(where, f"is lame: it answers {how}", f"make it serve the zone, or {remove}")


def _serves(survey: ZoneSurvey, reply: QueryResult) -> bool:
    return reply.is_good and reply.find(survey.zone, "SOA") is not None


def _serials(survey: ZoneSurvey) -> Iterator[Problem]:
    serials: dict[ZoneServer, int] = {}
    for server in survey.servers:
        for _, reply in survey.replies(server, survey.zone, "SOA"):
            if _serves(survey, reply) and (soa := reply.find(survey.zone, "SOA")):
                serials.setdefault(server, int(soa.values[0].split()[2]))
    for server, serial in serials.items():
        ahead = [s for s in serials if 0 < (serials[s] - serial) % (1 << 32) < 1 << 31]  # RFC 1982
        if ahead:
            newest = max(ahead, key=lambda s: (serials[s] - serial) % (1 << 32))
            what = f"is stale: its serial {serial} is behind {serials[newest]} of {newest}"
            remedy = "check why it doesn't transfer the zone: NOTIFY, access, and TSIG key"
            yield Problem(f"{survey.zone} at {server}", what, remedy)


# --- names --------------------------------------------------------------------------------


def _name(survey: ZoneSurvey, name: NameConfig, host: LocalState) -> Iterator[Problem]:
    """The problems of a name; the same problem at several servers is reported once."""
    faults: dict[tuple[str, str, bool], list[str]] = {}
    queried = 0
    for server in survey.servers:
        replies = [r for kind in ("A", "AAAA") for _, r in survey.replies(server, name.name, kind)]
        queried += bool(replies)
        for fault in _name_problems(survey, name, replies, host) if replies else ():
            faults.setdefault(fault, []).append(server.address)
    for (what, remedy, warning), addresses in faults.items():
        at = f" at {_and(addresses)}" if len(addresses) < queried else ""
        yield Problem(f"{name.name}{at}", what, remedy, warning)


def _name_problems(
    survey: ZoneSurvey, name: NameConfig, replies: list[QueryResult], host: LocalState
) -> Iterator[tuple[str, str, bool]]:
    """The problems of one server's replies: what, the remedy, and whether it is a warning."""
    if failed := next((r for r in replies if not r.is_good), None):
        yield failed.error or f"answers {failed.code}", "check its log", False
        return
    if link := next((rrset for r in replies if (rrset := r.find(name.name, "CNAME"))), None):
        if any(record.type == _CNAME for record in name.records):
            return
        yield f"is a CNAME to {link.values[0]}", "remove that: the name must have addresses", False
        return
    sets = [rrset for r in replies for rrset in r.answer if rrset.name == name.name]
    actual = {address for rrset in sets for address in rrset.values}
    published = host.published.get(name.name)
    if not actual:
        if name.uplinks != () and published != frozenset():
            missing = "no such name" if replies[0].code == "NXDOMAIN" else "it has no address"
            yield missing, _SEE_DNS, False
        return
    fixed = {str(ip_address(r.rdata)) for r in name.records if r.type in _ADDRESSES}
    ours, others = actual & set(host.own), sorted(actual - set(host.own) - fixed)
    if not ours and not fixed:
        yield f"resolves to {_and(others)}, but to no address of this host", _SEE_DNS, False
    elif others:
        what = f"also resolves to {_and(others)}, which no uplink of this host has"
        remedy = (
            "remove that"
            if survey.wanted.embedded
            else "remove that, unless another host shares the name"
        )
        yield what, remedy, not survey.wanted.embedded
    if published is not None and (stale := sorted(ours - published)):
        shown = _and(f"{address} ({host.own[address]})" for address in stale)
        yield f"still resolves to {shown}, which isn't published now", _SEE_DNS, False
    ttl_s = max(rrset.ttl for rrset in sets)
    if ttl_s > name.ttl:
        what = f"has a TTL of {ttl_s} s instead of {name.ttl} s"
        yield (
            what,
            "an uplink that is down stays published that long; make the server keep our TTL",
            False,
        )


def diagnose_alias(alias: Alias, host: LocalState, names: Iterable[str]) -> Iterator[Problem]:
    """The problems of a name in another zone that should lead here."""
    ours = tuple(names)
    actual = {address for rrset in alias.addresses for address in rrset.values}
    remedy = f"make it a CNAME to {_or(ours)}" if ours else ""
    if alias.target not in ours:
        if not actual:
            yield Problem(alias.name, f"can't be resolved ({alias.told})", remedy)
        elif foreign := sorted(actual - set(host.own)):
            yield Problem(alias.name, f"resolves to {_and(foreign)}, which no uplink has", remedy)
        else:
            what = f"has the fixed addresses {_and(actual)}, even of uplinks that are down"
            yield Problem(alias.name, what, remedy)
    for link in alias.links:
        if link.ttl > _LONG_CNAME_TTL_S:
            what = f"its CNAME to {link.values[0]} has a TTL of {link.ttl} s"
            remedy = "lower it: resolvers cache it that long"
            yield Problem(link.name, what, remedy, warning=True)


def _zone_title(zone: str) -> str:
    return zone or "the root"


def _and(texts: Iterable[str]) -> str:
    return ", ".join(sorted(texts))


def _or(texts: Iterable[str]) -> str:
    return " or ".join(texts)

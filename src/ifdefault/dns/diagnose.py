"""Find the problems of a surveyed zone, with their owner and a remedy.

Rules: pure; the only inputs are queries and replies. A problem has an owner: the parent, a server,
an uplink that doesn't reach it, or this host. What other operators may do as they like is a
warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ifdefault.dns.delegation import listed
from ifdefault.dns.diagnose_delegation import diagnose_delegation
from ifdefault.dns.exchange import NO_ANSWER, Exchange, QueryResult
from ifdefault.dns.survey import Alias, ZoneServer, ZoneSurvey
from ifdefault.model.dns import NameConfig
from ifdefault.model.errors import Problem

_HERE = "this host: "
_CNAME, _ADDRESSES = 5, (1, 28)
_LONG_CNAME_TTL_S = 3600
_SEE_DNS = "the daemon publishes it: see `ifdefault dns`"


@dataclass(frozen=True, slots=True)
class LocalState:
    """The state of this host. `own`: its addresses, with their uplinks; `published`: the addresses
    of each name that the daemon publishes now, if it runs."""

    own: Mapping[str, str]
    published: Mapping[str, frozenset[str]] = field(default_factory=dict)


def diagnose(survey: ZoneSurvey, host: LocalState) -> list[Problem]:
    problems = [*diagnose_delegation(survey, host.own), *_servers(survey), *_serials(survey)]
    for name in survey.wanted.names:
        problems += _name(survey, name, host)
    return problems


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
        what = f"{error}: {listed(addresses)} couldn't be queried"
        yield Problem("this host", what, "see ifdefault status", warning=True)


def _server(survey: ZoneSurvey, server: ZoneServer, exchanges: list[Exchange]) -> Iterator[Problem]:
    ways = dict.fromkeys(question.uplink for question, _ in exchanges)
    answered = [(question, reply) for question, reply in exchanges if not reply.error]
    where, delegation = f"{survey.zone} at {server}", survey.delegation
    named = delegation is not None and server.host in delegation.hosts
    remove = "remove it from the NS records" if named else "remove it from the config"
    if not answered:
        if exchanges:
            causes = {reply.error for _, reply in exchanges}
            what = f"port {server.port} doesn't answer by UDP or TCP ({listed(causes)})"
            own = survey.wanted.embedded and "" in ways
            remedy = "start the daemon: `ifdefault run`" if own else f"start it, or {remove}"
            if causes == {NO_ANSWER}:  # a port without a server refuses
                remedy = f"open it in the firewall there, {'or ' * own}{remedy}"
            yield Problem(where, what, remedy)
        return
    ways_answered = {question.uplink for question, _ in answered}
    for way in ways:
        if way not in ways_answered:
            errors = listed(
                {reply.error for question, reply in exchanges if question.uplink == way}
            )
            remedy = f"check for a filter, or why {way} doesn't reach it"
            yield Problem(where, f"can't be reached over {way} ({errors})", remedy)
    by_udp = [question.uplink for question, _ in answered if not question.tcp]
    by_tcp = [question.uplink for question, _ in answered if question.tcp]
    for one, other, has, lacks in (
        (by_udp, by_tcp, "UDP", "TCP"),
        (by_tcp, by_udp, "TCP", "UDP"),
    ):
        if ways_without := [way for way in one if way not in other]:
            over = f" over {listed(ways_without)}" if any(ways_without) else ""
            remedy = f"open {lacks} port {server.port}; resolvers need both (RFC 7766)"
            yield Problem(where, f"answers by {has}, but not by {lacks}{over}", remedy)
    if lame := next((reply for _, reply in answered if not reply.serves(survey.zone)), None):
        how = lame.code if lame.code != "NOERROR" else "without authority"
        yield Problem(where, f"is lame: it answers {how}", f"make it serve the zone, or {remove}")


def _serials(survey: ZoneSurvey) -> Iterator[Problem]:
    serials: dict[ZoneServer, int] = {}
    for server in survey.servers:
        for _, reply in survey.replies(server, survey.zone, "SOA"):
            if reply.serves(survey.zone) and (soa := reply.find(survey.zone, "SOA")):
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
        at = f" at {listed(addresses)}" if len(addresses) < queried else ""
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
    if not host.own:
        pass  # another machine, which doesn't know them
    elif not ours and not fixed:
        yield f"resolves to {listed(others)}, but to no address of this host", _SEE_DNS, False
    elif others:
        what = f"also resolves to {listed(others)}, which no uplink of this host has"
        remedy = (
            "remove that"
            if survey.wanted.embedded
            else "remove that, unless another host shares the name"
        )
        yield what, remedy, not survey.wanted.embedded
    if published is not None and (stale := sorted(ours - published)):
        shown = listed(f"{address} ({host.own[address]})" for address in stale)
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
            yield Problem(alias.name, f"resolves to {listed(foreign)}, which no uplink has", remedy)
        else:
            what = f"has the fixed addresses {listed(actual)}, even of uplinks that are down"
            yield Problem(alias.name, what, remedy)
    for link in alias.links:
        if link.ttl > _LONG_CNAME_TTL_S:
            what = f"its CNAME to {link.values[0]} has a TTL of {link.ttl} s"
            remedy = "lower it: resolvers cache it that long"
            yield Problem(link.name, what, remedy, warning=True)


def _or(texts: Iterable[str]) -> str:
    return " or ".join(texts)

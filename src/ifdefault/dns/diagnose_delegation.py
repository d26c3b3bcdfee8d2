"""Find the problems of a zone's delegation, at each server of the parent.

Rules: as in `diagnose`. Resolvers ask any of the parent's servers, so that each must be right. What
all of them say is a problem of the parent; what only some say, a problem of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ifdefault.dns.delegation import delegate, glue, listed, one_line
from ifdefault.dns.exchange import QueryResult
from ifdefault.dns.survey import Delegation, ParentReply, ZoneSurvey
from ifdefault.model.dns import within
from ifdefault.model.errors import Problem

_LONG_TTL_S = 24 * 3600  # of a delegation: many parents have one or two days


@dataclass(frozen=True, slots=True)
class _View:
    """What some of the parent's servers say. `delegation` None: there is none, by `reply`."""

    delegation: Delegation | None
    reply: QueryResult | None
    servers: tuple[str, ...] = ()


def diagnose_delegation(survey: ZoneSurvey, own: Mapping[str, str]) -> Iterator[Problem]:
    """`own`: this host's addresses, with their uplinks."""
    yield from _differing_views(survey, own)
    yield from _zone_ns_records(survey)
    if any(parent.delegation or not parent.reply.error for parent in survey.parents):
        for parent in survey.parents:  # if none answers, it is one problem, and said above
            yield from _parent_server(survey, parent)


def _differing_views(survey: ZoneSurvey, own: Mapping[str, str]) -> Iterator[Problem]:
    views, parent = _views(survey), _parent_title(survey)
    if not views:
        return
    by_view = [list(_view(survey, view, parent, own)) for view in views]
    common = [p for p in by_view[0] if all(p in problems for problems in by_view[1:])]
    yield from common
    others_right = f"make it transfer the zone again: the other servers of {parent} are right"
    is_right = any(not problems for problems in by_view)
    for view, problems in zip(views, by_view, strict=True):
        titled = _view(survey, view, f"{parent} at {listed(view.servers)}", own)
        for problem, shown in zip(problems, titled, strict=True):
            if problem not in common:
                yield replace(shown, remedy=others_right) if is_right else shown


def _views(survey: ZoneSurvey) -> list[_View]:
    """The replies of the parent's servers, the same ones together."""
    views: dict[object, _View] = {}
    for parent in survey.parents:
        cut, reply = parent.delegation, parent.reply
        if cut and cut.zone == survey.zone:
            addresses = {(r.name, address) for r in cut.glue for address in r.values}
            key: object = frozenset(cut.hosts), frozenset(addresses)
        elif not cut and reply.is_good and not _is_of(reply, survey.zone):
            key = None
        else:
            continue
        view = views.setdefault(key, _View(cut, reply))
        views[key] = replace(view, servers=(*view.servers, str(parent.server)))
    if views or _serves_child(survey):
        return list(views.values())
    return [_View(survey.delegation, survey.end.reply)]


def _is_of(reply: QueryResult, zone: str) -> bool:
    """Whether an authoritative reply is the zone's, not its parent's."""
    return bool(reply.find(zone, "NS") or (reply.soa and reply.soa.name == zone))


def _serves_child(survey: ZoneSurvey) -> bool:
    """Whether the parent's server serves the zone as well, and so tells no delegation."""
    reply, zone = survey.end.reply, survey.zone
    is_answered = reply is not None and (zone == survey.end.zone or reply.serves(zone))
    return survey.delegation is None and is_answered


def _view(
    survey: ZoneSurvey, view: _View, parent: str, own: Mapping[str, str]
) -> Iterator[Problem]:
    if (cut := view.delegation) is None:
        yield from _undelegated(survey, view.reply, parent)
        return
    yield from _ns_records(survey, cut, parent)
    yield from _glue(survey, cut, parent)
    yield from _unresolvable(survey, cut)
    yield from _single_uplink(survey, cut, own)
    yield from _parent_records(survey, cut, parent)


def _parent_title(survey: ZoneSurvey) -> str:
    cut = survey.delegation
    return (cut.parent if cut else survey.end.zone) or "the root"


def _parent_server(survey: ZoneSurvey, parent: ParentReply) -> Iterator[Problem]:
    """A server of the parent that is of no use."""
    reply = parent.reply
    if reply.is_local or reply.is_good or parent.delegation:
        return
    where = f"{_parent_title(survey)} at {parent.server}"
    what = (
        f"doesn't answer ({reply.error})" if reply.error else f"is lame: it answers {parent.told}"
    )
    remedy = "its operator should know: resolvers that ask it have to ask another server"
    yield Problem(where, what, remedy, warning=True)


def _undelegated(survey: ZoneSurvey, reply: QueryResult | None, parent: str) -> Iterator[Problem]:
    zone = survey.zone
    if reply is None:
        what = f"no server of {parent} answers, so it can't be resolved"
        yield Problem(zone, what, "see the path above")
    else:
        reason = " (no such name)" if reply.code == "NXDOMAIN" else ""
        if link := reply.find(zone, "CNAME"):
            reason = f" (a CNAME to {link.values[0]} is there)"
        add = f"add there: {one_line(delegate(survey.wanted))}" if survey.wanted.embedded else ""
        remedy = add or f"delegate it there, or use {parent} as the zone"
        yield Problem(zone, f"{parent} doesn't delegate it{reason}", remedy)


def _ns_records(survey: ZoneSurvey, delegation: Delegation, parent: str) -> Iterator[Problem]:
    """Compare the parent's NS records with those that should exist: ours, or the zone's own."""
    expected = {host for host, _ in survey.wanted.nameservers} or _child_set(survey)
    actual = set(delegation.hosts)
    if not expected:
        return
    if missing := sorted(expected - actual):
        lines = [line for line in delegate(survey.wanted) if {line[0], line[2][:-1]} & {*missing}]
        lines = lines or [(survey.zone, "NS", f"{host}.") for host in missing]
        what = f"{parent} doesn't name {listed(missing)} among its name servers"
        yield Problem(survey.zone, what, f"add there: {one_line(lines)}")
    if extra := sorted(actual - expected):
        what = f"{parent} names {listed(extra)} as name server{'s'[: len(extra) > 1]}"
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
                others.setdefault(listed(rrset.values), set()).add(server.address)
    for hosts, addresses in others.items():
        what = f"has the NS records {hosts}, not {listed(expected)}"
        remedy = "reload the config: `ifdefault reload`"
        yield Problem(f"{survey.zone} at {listed(addresses)}", what, remedy)


def _glue(survey: ZoneSurvey, delegation: Delegation, parent: str) -> Iterator[Problem]:
    ours = dict(survey.wanted.nameservers)
    is_served = any(reply.serves(survey.zone) for _, reply in survey.exchanges)
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
            what = f"{parent} gives {listed(actual)} for {host}, which is {listed(expected)}"
            parts = [f"remove there: {one_line(glue(host, wrong))}"] if wrong else []
            remedy = "; ".join([*parts, *([f"add there: {add}"] if add else [])])
        yield Problem(survey.zone, what, remedy)


def _unresolvable(survey: ZoneSurvey, delegation: Delegation) -> Iterator[Problem]:
    """Name servers in other zones that have no address."""
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


def _single_uplink(
    survey: ZoneSurvey, delegation: Delegation, own: Mapping[str, str]
) -> Iterator[Problem]:
    """Whether the failure of one uplink makes the whole zone unreachable."""
    if not survey.wanted.embedded:
        return
    named = (server for server in survey.servers if server.host in delegation.hosts)
    uplinks = {own.get(server.address, "") for server in named}
    if uplinks and "" not in uplinks and len(uplinks) < 2:
        what = f"all its name servers are on {listed(uplinks)}, so the zone fails with that uplink"
        yield Problem(survey.zone, what, "add a name server on another uplink, or elsewhere")


def _parent_records(survey: ZoneSurvey, delegation: Delegation, parent: str) -> Iterator[Problem]:
    """Other records of the parent; only for the embedded server's zones."""
    if not survey.wanted.embedded:
        return
    if survey.signed:
        what = f"{parent} has a DS record for it, but it isn't signed"
        yield Problem(
            survey.zone, what, "remove that record; validating resolvers can't resolve the zone"
        )
    ttl_s = max((delegation.ttl, *(rrset.ttl for rrset in delegation.glue)))
    if ttl_s > _LONG_TTL_S:
        what = f"{parent} has a TTL of {ttl_s} s for its delegation"
        remedy = (
            "lower it there if possible: a new address of an uplink takes that long to be known"
        )
        yield Problem(survey.zone, what, remedy, warning=True)

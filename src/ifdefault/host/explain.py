"""Which uplink a packet or connection takes, and why: by our own lookup and by the kernel's.

Rules: both are done, and a difference is reported. The mark of a reply is computed from the
mechanism, as the nftables rules would set it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ifdefault.host import explain_forward
from ifdefault.host.explain_forward import MarkedFlow
from ifdefault.host.explain_return import way_back
from ifdefault.host.status_mptcp import announced_text
from ifdefault.kernel.route_get import route_get
from ifdefault.model.address import family_of
from ifdefault.model.config import Family
from ifdefault.model.errors import ConfigError, Problem
from ifdefault.model.flow import Flow, Question, RouteReply
from ifdefault.model.kernel import FORWARDING, Redirect, Uplink
from ifdefault.plan import prefixes, self_check
from ifdefault.plan.describe import route_text, rule_text, table_name
from ifdefault.plan.forward_table import Backend
from ifdefault.plan.lookup import Fib, LookupResult
from ifdefault.plan.own_addresses import own_addresses
from ifdefault.plan.prepare import Prepared

PROTOCOLS = {
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "icmp": socket.IPPROTO_ICMP,
    "icmp6": socket.IPPROTO_ICMPV6,
}


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection; address "" if the kernel chooses it."""

    address: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    direction: str  # in, out, forwarded
    arrival: str  # how it comes in, "" for out
    uplink: str  # that it leaves by (for "in": that its reply leaves by), "" for none
    hop: str
    source: str
    rule: str
    route: str
    mechanism: str
    kernel: str  # "agrees", or the kernel's result
    agrees: bool
    astray: str = ""  # the reason if it leaves by the wrong uplink
    remedy: str = ""  # what would change that
    goes_to: str = ""  # the service that it is for, and its servers
    returns: str = ""  # what becomes of it when a better uplink is usable again
    mptcp: str = ""  # which address the peer is told of


def explain(
    prepared: Prepared,
    protocol: str,
    source: End,
    target: End,
    iif: str = "",
    mark: int = 0,
    uid: int = 0,
) -> Explanation:
    """Explain one packet or connection; ConfigError if the addresses don't fit. `uid` is the user
    whose socket sends it."""
    family = _family(source, target)
    local = own_addresses(prepared.facts)
    is_ours = not source.address or source.address in local
    if not is_ours and (translated := _behind_nat(prepared, family, target.address)):
        inside = replace(target, address=translated)
        explanation = explain(prepared, protocol, source, inside, iif, mark, uid)
        arrival = f"{explanation.arrival}; {target.address} is translated to it"
        return replace(explanation, arrival=arrival)
    service = explain_forward.service(prepared, protocol, target.address, target.port)
    if target.address in local and not is_ours:
        if service and service.servers:
            return _incoming_service(prepared, PROTOCOLS[protocol], source, target, service)
        goes_to = explain_forward.service_text(prepared, service) if service else ""
        explanation = _incoming(prepared, family, PROTOCOLS[protocol], source, target)
        return replace(explanation, goes_to=goes_to)
    flow = Flow(
        family,
        dst=target.address,
        src=source.address,
        mark=mark,
        ip_proto=PROTOCOLS[protocol],
        sport=source.port,
        dport=target.port,
        uid=uid,
    )
    if is_ours:
        return _with_way_back(prepared, flow, _outgoing(prepared, flow, service))
    flow = replace(flow, iif=iif or _guess_interface(prepared, family, source.address))
    marked = MarkedFlow(flow) if mark else explain_forward.forwarded_flow(prepared, flow)
    leaving = _leaving(prepared, marked, "forwarded", f"comes in over {flow.iif}")
    return _with_way_back(prepared, flow, leaving)


def _with_way_back(prepared: Prepared, flow: Flow, leaving: Explanation) -> Explanation:
    return replace(leaving, returns=way_back(prepared, flow, leaving.uplink))


def _behind_nat(prepared: Prepared, family: Family, address: str) -> str:
    """The address of the uplink that has this one as `public`; "" if none has."""
    names = {uplink.name for uplink in prepared.config.uplinks if address in uplink.public}
    return next((u.source(family) or "" for u in prepared.uplinks if u.name in names), "")


def _outgoing(prepared: Prepared, flow: Flow, service: Backend | None) -> Explanation:
    """A packet that the host itself sends."""
    if service and service.servers:
        server = service.servers[0]
        flow = replace(flow, dst=server.address, dport=server.port)
        explanation = _look_up(prepared, flow, "out", "", "")
        return replace(explanation, goes_to=explain_forward.service_text(prepared, service))
    if flow.src or flow.mark:
        return _look_up(prepared, flow, "out", "", "", _owners(prepared, flow.src))
    return _leaving(prepared, explain_forward.outgoing_flow(prepared, flow), "out", "")


def _leaving(prepared: Prepared, marked: MarkedFlow, direction: str, arrival: str) -> Explanation:
    """Where a flow goes that may have been given an uplink."""
    flow = marked.flow
    explanation = _look_up(prepared, flow, direction, arrival, marked.why)
    uplink = next((u for u in prepared.uplinks if u.name == explanation.uplink), None)
    if uplink is None or flow.mark not in (0, uplink.outgoing_mark):
        return replace(explanation, mechanism="")
    if address := explain_forward.masquerade_address(prepared, flow, uplink):
        why = marked.why or f"masquerade: it stays on {uplink.name} even if the primary changes"
        return replace(explanation, source=f"{address}, instead of {flow.src}", mechanism=why)
    return explanation


def _family(source: End, target: End) -> Family:
    if not target.address:
        what, remedy = "the target is any address", "give the one that the packet is sent to"
        raise ConfigError(Problem("explain", what, remedy))
    families = {family_of(end.address) for end in (source, target) if end.address}
    if len(families) != 1:
        what = f"{source.address} and {target.address} aren't of one address family"
        raise ConfigError(Problem("explain", what, "give two IPv4 or two IPv6 addresses"))
    return families.pop()


def _guess_interface(prepared: Prepared, family: Family, address: str) -> str:
    """The interface that leads to an address, on which its packets normally come in."""
    result = Fib.of(prepared.facts).lookup(Flow(family, dst=address))
    return result.hop.dev if result.hop else ""


def _incoming(
    prepared: Prepared, family: Family, ip_proto: int, source: End, target: End
) -> Explanation:
    """A connection to one of our addresses: the route of its reply is explained."""
    reply = Flow(
        family,
        dst=source.address,
        src=target.address,
        ip_proto=ip_proto,
        sport=target.port,
        dport=source.port,
    )
    owners = _owners(prepared, target.address)
    if not owners:
        return _look_up(prepared, reply, "in", f"no uplink owns {target.address}", "")
    uplink = owners[0]
    arrival = f"over {uplink.name} ({uplink.interface}), which owns {target.address}"
    if len(owners) > 1:
        names = ", ".join(u.name for u in owners)
        arrival = f"over any of {names}: they share {target.address}; as if over {uplink.name}"
    redirect = _redirect(prepared, family, ip_proto, source, target)
    if redirect and redirect.address != target.address:
        reply = replace(reply, src=redirect.address, mark=uplink.arrival_mark)
        why = (
            f"port {target.port} is bound to the wildcard address, redirected to {redirect.address}"
        )
        return _look_up(prepared, reply, "in", arrival, f"conntrack: {why}", owners)
    if uplink.mechanism != "source":
        reply = replace(reply, mark=uplink.arrival_mark)
    why = f"{uplink.mechanism}: {uplink.why}"
    return _look_up(prepared, reply, "in", arrival, why, owners)


def _incoming_service(
    prepared: Prepared, ip_proto: int, source: End, target: End, service: Backend
) -> Explanation:
    """A connection to a service: its reply comes from a server behind the host."""
    uplink, server = _owners(prepared, target.address)[0], service.servers[0]
    reply = Flow(
        family_of(target.address),
        dst=source.address,
        src=server.address,
        iif=_guess_interface(prepared, family_of(server.address), server.address),
        ip_proto=ip_proto,
        sport=server.port,
        dport=source.port,
    )
    arrives_by = _guess_interface(prepared, reply.family, source.address)
    if arrives_by in {u.interface for u in prepared.uplinks}:
        arrival = f"over {uplink.name} ({uplink.interface}), which owns {target.address}"
        why = f"connmark: the connection has {uplink.name}'s arrival mark {uplink.arrival_mark:#x}"
        reply, owners = replace(reply, mark=uplink.arrival_mark), [uplink]
    else:
        arrival, owners = f"comes in over {arrives_by}", []
        why = "hairpin: the client's address is replaced, so that the reply comes back to this host"
    explanation = _look_up(prepared, reply, "in", arrival, why, owners)
    return replace(
        explanation,
        source=f"{target.address}, instead of {server.address}",
        goes_to=explain_forward.service_text(prepared, service),
    )


def _owners(prepared: Prepared, address: str) -> list[Uplink]:
    """The usable uplinks that an address belongs to."""
    return [
        u for u in prepared.uplinks if not u.pending and address in {a.address for a in u.addresses}
    ]


def _redirect(
    prepared: Prepared, family: Family, ip_proto: int, source: End, target: End
) -> Redirect | None:
    """The redirect of a packet to a wildcard UDP server."""
    ports = prepared.desired.udp_ports
    if ip_proto != socket.IPPROTO_UDP or (family, target.port) not in ports:
        return None
    client = prefixes.number(source.address)
    for redirect in prepared.desired.redirects:
        first, last = prefixes.number(redirect.first), prefixes.number(redirect.last)
        if redirect.family == family and first <= client <= last:
            return redirect
    return None


def _look_up(
    prepared: Prepared,
    flow: Flow,
    direction: str,
    arrival: str,
    mechanism: str,
    owners: Sequence[Uplink] = (),
) -> Explanation:
    result = Fib.of(prepared.facts).lookup(flow)
    kernel_reply = route_get(flow)
    our_text, kernel_text = _our_text(result), _kernel_text(kernel_reply)
    agrees = our_text == kernel_text
    if flow.iif and dict(prepared.facts.sysctls).get(FORWARDING[flow.family]) == "0":
        arrival += f", but isn't forwarded: {FORWARDING[flow.family]} is 0"
        # IPv4 rejects it before the lookup, IPv6 only when it forwards a packet
        agrees = agrees if flow.family == 6 else kernel_reply.kind != "unicast"
    uplink = _uplink_name(prepared.uplinks, result)
    astray = remedy = ""
    if uplink and owners and uplink not in {u.name for u in owners}:
        astray = f"this is {owners[0].name}'s packet, {uplink}'s provider may drop it"
        remedy = _remedy(prepared, flow, owners[0], kernel_reply)
    return Explanation(
        direction=direction,
        arrival=arrival,
        uplink=uplink,
        hop=our_text,
        source=flow.src or result.source,
        rule=rule_text(result.rule) if result.rule else "no rule has a route",
        route=route_text(result.route) if result.route else "",
        mechanism=mechanism,
        kernel="agrees" if agrees else f"disagrees: {kernel_text}",
        agrees=agrees,
        astray=astray,
        remedy=remedy,
        mptcp=_announced(prepared, flow, flow.src or result.source),
    )


def _announced(prepared: Prepared, flow: Flow, address: str) -> str:
    """What peers are told, of connections that end on this host."""
    is_own = flow.ip_proto == PROTOCOLS["tcp"] and not flow.iif
    return announced_text(prepared, address, flow.family) if is_own else ""


def _remedy(prepared: Prepared, flow: Flow, owner: Uplink, reply: RouteReply) -> str:
    """What makes a packet leave by its owner: apply, if the plan does; otherwise what the
    self-check says of the rule or route that takes it."""
    config, facts = prepared.config, prepared.facts
    applied = Fib.of(self_check.predicted(config, facts, prepared.desired))
    if _uplink_name(prepared.uplinks, applied.lookup(flow)) == owner.name:
        return "run ifdefault apply"
    gateway = owner.gateway(flow.family) or ""
    question = Question("reply", owner.name, flow, owner.interface, gateway)
    return "; ".join(
        f"{problem.what}; {problem.remedy}"
        for problem in self_check.misrouted(config, facts, ((question, reply),))
    )


def _uplink_name(uplinks: tuple[Uplink, ...], result: LookupResult) -> str:
    if not result.hop or not result.route:
        return ""
    on_it = [u for u in uplinks if u.interface == result.hop.dev]
    by_table = [u for u in on_it if u.table == result.route.table]
    by_source = [u for u in on_it if result.source in {a.address for a in u.addresses}]
    return next((u.name for u in (*by_table, *by_source, *on_it)), "")


def _our_text(result: LookupResult) -> str:
    if not result.hop or not result.route:
        return result.kind
    via = f"via {result.hop.gateway} " if result.hop.gateway else ""
    return f"{via}dev {result.hop.dev} table {table_name(result.route.table)}"


def _kernel_text(reply: RouteReply) -> str:
    if reply.kind != "unicast":
        return reply.kind
    via = f"via {reply.gateway} " if reply.gateway else ""
    return f"{via}dev {reply.dev} table {table_name(reply.table)}"

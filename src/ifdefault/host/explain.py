"""Which uplink a packet or connection takes, and why: by our own lookup, and by the kernel's.

Rules: both are asked, and where they differ that is the answer. The mark that a reply will bear
is worked out from the mechanism, as the nftables rules would set it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ifdefault.host import explain_forward
from ifdefault.host.explain_forward import Passage
from ifdefault.kernel.route_get import RouteReply, route_get
from ifdefault.model.address import family_of
from ifdefault.model.config import Family
from ifdefault.model.errors import ConfigError, Problem
from ifdefault.model.kernel import FORWARDING, Redirect, Uplink
from ifdefault.plan import prefixes
from ifdefault.plan.describe import route_text, rule_text, table_name
from ifdefault.plan.forward_table import Backend
from ifdefault.plan.lookup import Fib, Flow, LookupResult
from ifdefault.plan.prepare import Prepared

PROTOCOLS = {
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "icmp": socket.IPPROTO_ICMP,
    "icmp6": socket.IPPROTO_ICMPV6,
}


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection; address "" where the kernel shall choose."""

    address: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    direction: str  # in, out, forwarded
    arrival: str  # how it comes in, "" for out
    uplink: str  # the uplink that it leaves by (for "in": that its answer leaves by), "" for none
    hop: str
    source: str
    rule: str
    route: str
    mechanism: str
    kernel: str  # "agrees", or what it says instead
    agrees: bool
    astray: str = ""  # why it leaves by the wrong uplink
    goes_to: str = ""  # the service that it is for, and who serves it


def explain(
    prepared: Prepared,
    protocol: str,
    source: End,
    target: End,
    iif: str = "",
    mark: int = 0,
    uid: int = 0,
) -> Explanation:
    """Explain one packet or connection; ConfigError where the question makes no sense. `uid` is
    of the user whose socket sends it."""
    family = _family(source, target)
    local = {a.address for a in prepared.facts.addresses}
    is_ours = source.address in local or not source.address
    service = explain_forward.service(prepared, protocol, target.address, target.port)
    if target.address in local and not is_ours:
        if service and service.servers:
            return _served(prepared, PROTOCOLS[protocol], source, target, service)
        told = explain_forward.service_text(prepared, service) if service else ""
        found = _incoming(prepared, family, PROTOCOLS[protocol], source, target)
        return replace(found, goes_to=told)
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
        return _outgoing(prepared, flow, service)
    flow = replace(flow, iif=iif or _guess_interface(prepared, family, source.address))
    passage = Passage(flow) if mark else explain_forward.from_behind(prepared, flow)
    return _passed(prepared, passage, "forwarded", f"comes in over {flow.iif}")


def _outgoing(prepared: Prepared, flow: Flow, service: Backend | None) -> Explanation:
    """A packet of the host's own."""
    if service and service.servers:
        server = service.servers[0]
        flow = replace(flow, dst=server.address, dport=server.port)
        found = _judge(prepared, flow, "out", "", "")
        return replace(found, goes_to=explain_forward.service_text(prepared, service))
    if flow.src or flow.mark:
        return _judge(prepared, flow, "out", "", "", _owners(prepared, flow.src))
    return _passed(prepared, explain_forward.chosen(prepared, flow), "out", "")


def _passed(prepared: Prepared, passage: Passage, direction: str, arrival: str) -> Explanation:
    """Where a flow goes that may be given an uplink of its own, if it leaves by one at all."""
    flow = passage.flow
    found = _judge(prepared, flow, direction, arrival, passage.why)
    uplink = next((u for u in prepared.uplinks if u.name == found.uplink), None)
    if uplink is None or flow.mark not in (0, uplink.outgoing_mark):
        return replace(found, mechanism="")
    if own := explain_forward.translated(prepared, flow, uplink):
        why = (
            passage.why or f"masquerade: it stays on {uplink.name}, whatever becomes of the default"
        )
        return replace(found, source=f"{own}, as which {flow.src} goes out", mechanism=why)
    return found


def _family(source: End, target: End) -> Family:
    families = {family_of(end.address) for end in (source, target) if end.address}
    if len(families) != 1 or not target.address:
        what = f"{source.address or 'any'} and {target.address} are of two families"
        raise ConfigError(Problem("explain", what, "give two IPv4 or two IPv6 addresses"))
    return families.pop()


def _guess_interface(prepared: Prepared, family: Family, address: str) -> str:
    """The interface that leads back to an address: where its packets come in, if all is well."""
    verdict = Fib.of(prepared.facts).lookup(Flow(family, dst=address))
    return verdict.hop.dev if verdict.hop else ""


def _incoming(
    prepared: Prepared, family: Family, ip_proto: int, source: End, target: End
) -> Explanation:
    """A connection to one of our addresses: what counts is the way of its answer."""
    answer = Flow(
        family,
        dst=source.address,
        src=target.address,
        ip_proto=ip_proto,
        sport=target.port,
        dport=source.port,
    )
    owners = _owners(prepared, target.address)
    if not owners:
        return _judge(prepared, answer, "in", f"no uplink owns {target.address}", "")
    uplink = owners[0]
    arrival = f"over {uplink.name} ({uplink.interface}), which owns {target.address}"
    if len(owners) > 1:
        names = ", ".join(u.name for u in owners)
        arrival = f"over any of {names}: they share {target.address}; as if over {uplink.name}"
    redirect = _redirect(prepared, family, ip_proto, source, target)
    if redirect and redirect.address != target.address:
        answer = replace(answer, src=redirect.address, mark=uplink.arrival_mark)
        why = f"port {target.port} is bound to no address, redirected to {redirect.address}"
        return _judge(prepared, answer, "in", arrival, f"conntrack: {why}", owners)
    if uplink.mechanism != "source":
        answer = replace(answer, mark=uplink.arrival_mark)
    why = f"{uplink.mechanism}: {uplink.why}"
    return _judge(prepared, answer, "in", arrival, why, owners)


def _served(
    prepared: Prepared, ip_proto: int, source: End, target: End, service: Backend
) -> Explanation:
    """A connection to a service: its answer comes from behind the host."""
    uplink, server = _owners(prepared, target.address)[0], service.servers[0]
    answer = Flow(
        family_of(target.address),
        dst=source.address,
        src=server.address,
        iif=_guess_interface(prepared, family_of(server.address), server.address),
        ip_proto=ip_proto,
        sport=server.port,
        dport=source.port,
    )
    arrives_by = _guess_interface(prepared, answer.family, source.address)
    if arrives_by in {u.interface for u in prepared.uplinks}:
        arrival = f"over {uplink.name} ({uplink.interface}), which owns {target.address}"
        why = f"follow: the connection bears {uplink.name}'s arrival mark {uplink.arrival_mark:#x}"
        answer, owners = replace(answer, mark=uplink.arrival_mark), [uplink]
    else:
        arrival, owners = f"comes in over {arrives_by}", []
        why = "hairpin: the client's address is replaced, so that the answer comes back here"
    found = _judge(prepared, answer, "in", arrival, why, owners)
    return replace(
        found,
        source=f"{target.address}, as which {server.address} answers",
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
    """The redirect that a packet to a naive UDP socket meets."""
    ports = prepared.desired.udp_ports
    if ip_proto != socket.IPPROTO_UDP or (family, target.port) not in ports:
        return None
    client = prefixes.number(source.address)
    for redirect in prepared.desired.redirects:
        first, last = prefixes.number(redirect.first), prefixes.number(redirect.last)
        if redirect.family == family and first <= client <= last:
            return redirect
    return None


def _judge(
    prepared: Prepared,
    flow: Flow,
    direction: str,
    arrival: str,
    mechanism: str,
    owners: Sequence[Uplink] = (),
) -> Explanation:
    verdict = Fib.of(prepared.facts).lookup(flow)
    told = route_get(
        flow.dst,
        flow.src,
        iif=flow.iif,
        oif=flow.oif,
        mark=flow.mark,
        ip_proto=flow.ip_proto,
        ports=(flow.sport, flow.dport),
        uid=flow.uid,
    )
    ours, kernels = _ours(verdict), _kernels(told)
    agrees = ours == kernels
    if flow.iif and dict(prepared.facts.sysctls).get(FORWARDING[flow.family]) == "0":
        arrival += f", and goes no further: {FORWARDING[flow.family]} is 0"
        # IPv4 refuses before it looks, IPv6 only when it has a packet
        agrees = agrees if flow.family == 6 else told.route is None
    uplink = _uplink_name(prepared.uplinks, verdict)
    astray = ""
    if uplink and owners and uplink not in {u.name for u in owners}:
        astray = f"this is {owners[0].name}'s packet, {uplink}'s provider may drop it"
    return Explanation(
        direction=direction,
        arrival=arrival,
        uplink=uplink,
        hop=ours,
        source=flow.src or verdict.source,
        rule=rule_text(verdict.rule) if verdict.rule else "no rule leads anywhere",
        route=route_text(verdict.route) if verdict.route else "",
        mechanism=mechanism,
        kernel="agrees" if agrees else f"says {kernels}",
        agrees=agrees,
        astray=astray,
    )


def _uplink_name(uplinks: tuple[Uplink, ...], verdict: LookupResult) -> str:
    if not verdict.hop or not verdict.route:
        return ""
    on_it = [u for u in uplinks if u.interface == verdict.hop.dev]
    by_table = [u for u in on_it if u.table == verdict.route.table]
    by_source = [u for u in on_it if verdict.source in {a.address for a in u.addresses}]
    return next((u.name for u in (*by_table, *by_source, *on_it)), "")


def _ours(verdict: LookupResult) -> str:
    if not verdict.hop or not verdict.route:
        return verdict.kind
    via = f"via {verdict.hop.gateway} " if verdict.hop.gateway else ""
    return f"{via}dev {verdict.hop.dev} table {table_name(verdict.route.table)}"


def _kernels(told: RouteReply) -> str:
    if told.route is None:
        return told.refusal
    if told.route.kind != "unicast":
        return told.route.kind
    hop = told.route.hops[0]
    via = f"via {hop.gateway} " if hop.gateway else ""
    return f"{via}dev {hop.dev} table {table_name(told.route.table)}"

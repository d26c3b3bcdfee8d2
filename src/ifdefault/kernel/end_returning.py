"""Ends the connections of an uplink that would use a better one if they were opened now: TCP
sockets, and tracked flows of networks behind this host.

Rules: outgoing connections only, as in `kill_connections`. The kernel is asked by which table a
connection would be routed now; it ends only if that is the table of a better uplink, so that
outgoing rules, networks on the link, VPNs and routes of others are respected. Sockets bound to an
interface stay, and those of control groups whose connections still get the uplink. A socket of a
program that has bound it to the uplink's address can't be told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ifdefault.kernel import conntrack, sockdiag
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.ebpf import cgroups
from ifdefault.kernel.kill_connections import Killed, Socket, destroy, outgoing_sockets
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.read import read_links
from ifdefault.kernel.route_get import route_get_many
from ifdefault.kernel.rtnetlink import address_text
from ifdefault.kernel.uapi import netfilter as nf
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER, NETLINK_SOCK_DIAG
from ifdefault.model.address import family_of
from ifdefault.model.config import Family
from ifdefault.model.flow import Flow, RouteReply
from ifdefault.model.returning import Returning


def end_returning(returning: Returning) -> Killed:
    tcp, udp = _end_sockets(returning)
    return Killed(tcp, _end_flows(returning), udp)


def _replies(flows: Iterable[Flow]) -> dict[Flow, RouteReply]:
    """How the kernel would route these now, each asked once."""
    different = list(dict.fromkeys(flows))
    with Netlink() as netlink:
        links = read_links(netlink)
    return dict(zip(different, route_get_many(different, links), strict=True))


def _tables(flows: Iterable[Flow]) -> dict[Flow, int]:
    """The table of the route of each."""
    return {flow: reply.table for flow, reply in _replies(flows).items()}


# --- sockets ------------------------------------------------------------------------------


def _end_sockets(returning: Returning) -> tuple[int, int]:
    """How many TCP and UDP sockets were destroyed."""
    groups = _marks_of_groups(returning)
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        selectors = returning.addresses, (returning.mark,), returning.mask
        sockets = outgoing_sockets(netlink, *selectors)
        flows = {s: _flow(returning, s) for s in sockets if _may_return(returning, groups, s[1])}
        tables = _tables(flows.values())
        ending = [s for s, flow in flows.items() if tables[flow] in returning.tables]
        return destroy(netlink, ending)


def _marks_of_groups(returning: Returning) -> dict[int, int]:
    """The mark that connections of a control group get now, by the group's id. A group below
    another may have a mark of its own."""
    marks: dict[int, int] = {}
    for path, mark in sorted(returning.groups, key=lambda group: group[0].count("/")):
        marks |= dict.fromkeys(cgroups.numbers_below(path), mark)
    return marks


def _may_return(returning: Returning, groups: dict[int, int], message: bytes) -> bool:
    """Whether a socket is of the family, and has its uplink neither by its interface, nor from its
    control group, nor by a mark that its program gave it."""
    family = 4 if sockdiag.remote_address(message).startswith(sockdiag.MAPPED) else 6
    if family != returning.family or sockdiag.is_bound_to_interface(message):
        return False
    if groups:
        group = sockdiag.cgroup(message)
        if group is None or group in groups:
            return group is not None and groups[group] in returning.marks
    return returning.balanced or not sockdiag.mark(message) & returning.mask


def _flow(returning: Returning, found: Socket) -> Flow:
    """A socket's connection, as it would be routed if it were opened now."""
    protocol, message = found
    return Flow(
        returning.family,
        sockdiag.text(sockdiag.remote_address(message)),
        mark=sockdiag.mark(message) & ~returning.mask,
        ip_proto=protocol,
        dport=sockdiag.remote_port(message),
        uid=sockdiag.uid(message),
    )


# --- flows --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tracked:
    """A tracked flow. `server`: the destination behind any translation of addresses; `answered`:
    where its replies go."""

    family: Family
    protocol: int
    client: str
    server: str
    answered: str
    port: int
    mark: int

    def routed(self, iif: str) -> Flow:
        return Flow(
            self.family, self.server, self.client, iif, ip_proto=self.protocol, dport=self.port
        )


def _end_flows(returning: Returning) -> int:
    """Delete the entries of networks behind this host, so that the next packet of each takes the
    better uplink; the host's own have sockets."""
    if not conntrack.count():  # avoid loading the module if nothing is tracked
        return 0
    flows = dict(_flows_behind(returning))
    clients = _replies(Flow(flow.family, flow.client) for flow in flows.values())
    asked = {}
    for entry, flow in flows.items():
        if near := clients[Flow(flow.family, flow.client)].dev:
            asked[entry] = flow.routed(near)
    tables = _tables(asked.values())
    with Netlink(NETLINK_NETFILTER) as netlink:
        ending = [entry for entry, flow in asked.items() if tables[flow] in returning.tables]
        return conntrack.delete(netlink, ending)


def _flows_behind(returning: Returning) -> Iterator[tuple[bytes, _Tracked]]:
    """Flows that others send through this host, answered to the uplink's address, or marked."""
    for entry in _entries(returning):
        flow = decode_flow(entry)
        is_uplinks = (
            flow.answered in returning.addresses or flow.mark & returning.mask == returning.mark
        )
        if flow.family == returning.family and is_uplinks and flow.client not in returning.own:
            yield entry, flow


def _entries(returning: Returning) -> Iterator[bytes]:
    for address in returning.addresses:
        with Netlink(NETLINK_NETFILTER) as netlink:
            yield from conntrack.answered_to(netlink, address)
    with Netlink(NETLINK_NETFILTER) as netlink:
        yield from conntrack.marked(netlink, returning.mark, returning.mask)


@decodes
def decode_flow(entry: bytes) -> _Tracked:
    found, original, reply = conntrack.decode_tuples(entry)
    client, server, answered = map(address_text, (original.source, reply.source, reply.destination))
    return _Tracked(
        family_of(client),
        reply.protocol,
        client,
        server,
        answered,
        reply.ports[0],
        int.from_bytes(found.get(nf.CTA_MARK, b"")),
    )

"""Ends the connections of an uplink that would use a better one if they were opened now: TCP
sockets, and tracked flows of networks behind this host.

Rules: outgoing connections only, as in `kill_connections`. The kernel is asked by which table a
connection would be routed now; it ends only if that is the table of a better uplink, so that
outgoing rules, networks on the link, VPNs and routes of others are respected. Sockets bound to an
interface stay, and those of control groups whose connections still get the uplink. A socket of a
program that has bound it to the uplink's address can't be told apart.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ifdefault.kernel import conntrack, sockdiag, socket_filter
from ifdefault.kernel.ebpf import cgroups
from ifdefault.kernel.kill_connections import Killed, outgoing_sockets
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.read import read_links
from ifdefault.kernel.route_get import route_get_many
from ifdefault.kernel.rtnetlink import packed
from ifdefault.kernel.socket_filter import Prefixes
from ifdefault.kernel.uapi import inet_diag as diag
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER, NETLINK_SOCK_DIAG
from ifdefault.model.errors import HostError
from ifdefault.model.flow import Flow, RouteReply
from ifdefault.model.returning import Returning

_UNKNOWN = -1  # the mark of a control group, if the kernel doesn't tell the group


def end_returning(returning: Returning) -> Killed:
    return Killed(_end_sockets(returning), _end_flows(returning))


def _tables(flows: Iterable[Flow]) -> dict[Flow, RouteReply]:
    """How the kernel would route these, each asked once."""
    different = list(dict.fromkeys(flows))
    with Netlink() as netlink:
        links = read_links(netlink)
    return dict(zip(different, route_get_many(different, links), strict=True))


# --- sockets ------------------------------------------------------------------------------


def _end_sockets(returning: Returning) -> int:
    own, marked = Prefixes(returning.addresses), (returning.mark,)
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        groups = _marks_of_groups(returning)
        asked: dict[bytes, Flow] = {}
        for message in outgoing_sockets(netlink, own, marked, returning.mask):
            if not sockdiag.is_bound_to_device(message) and _may_return(returning, groups, message):
                asked[message] = _flow(returning, message)
        replies = _tables(asked.values())
        ended = [
            sockdiag.query_one(message)
            for message, flow in asked.items()
            if replies[flow].table in returning.tables
        ]
        return netlink.change_many(diag.SOCK_DESTROY, ended)


def _marks_of_groups(returning: Returning) -> dict[int, int]:
    """The mark that connections of a control group get now, by the group's id. A group below
    another may have a mark of its own."""
    marks: dict[int, int] = {}
    for path, mark in sorted(returning.groups, key=lambda group: group[0].count("/")):
        try:
            marks |= dict.fromkeys(cgroups.numbers_below(path), mark)
        except HostError:  # no hierarchy: there are no groups
            return {}
    return marks


def _may_return(returning: Returning, groups: dict[int, int], message: bytes) -> bool:
    """Whether a socket has its uplink neither from its control group nor by a mark of its own, and
    is of the right family."""
    family = 4 if sockdiag.remote_address(message).startswith(sockdiag.MAPPED) else 6
    if family != returning.family:
        return False
    if groups:
        group = sockdiag.cgroup(message)
        if group is None or group in groups:
            return group is not None and groups[group] in returning.marks
    return returning.balanced or not sockdiag.mark(message) & returning.mask


def _flow(returning: Returning, message: bytes) -> Flow:
    """The socket's connection, as it would be routed if it were opened now."""
    return Flow(
        returning.family,
        sockdiag.text(sockdiag.remote_address(message)),
        mark=sockdiag.mark(message) & ~returning.mask,
        ip_proto=socket.IPPROTO_TCP,
        dport=sockdiag.remote_port(message),
        uid=sockdiag.uid(message),
    )

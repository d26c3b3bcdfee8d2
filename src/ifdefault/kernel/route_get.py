"""The kernel's route lookup for packets (RTM_GETROUTE), as `ip route get` does it."""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
from collections.abc import Mapping, Sequence

from ifdefault.kernel import rtnetlink
from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attribute, attribute_u32
from ifdefault.kernel.read import read_links
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.model.flow import Flow, RouteReply
from ifdefault.model.kernel import Link

# what a lookup returns if it ends at such a route or rule, or finds none (linux/rtnetlink.h,
# fib_props in net/ipv4/fib_semantics.c)
_KINDS = {
    errno.EINVAL: "blackhole",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EACCES: "prohibit",
}


def route_get(flow: Flow) -> RouteReply:
    """Look up the route of one packet."""
    with Netlink() as netlink:
        return route_get_many((flow,), read_links(netlink))[0]


def route_get_many(flows: Sequence[Flow], links: Sequence[Link]) -> list[RouteReply]:
    """Look up the routes of packets, received on `iif` or, if that is "", sent by this host. An
    interface that doesn't exist counts as none."""
    names = {link.index: link.name for link in links}
    indexes = {name: index for index, name in names.items()}
    queries = [query(flow, indexes.get(flow.iif, 0), indexes.get(flow.oif, 0)) for flow in flows]
    with Netlink() as netlink:
        return [
            decode_reply(number, message, names)
            for number, message in netlink.answers(rt.RTM_GETROUTE, queries)
        ]


@decodes
def decode_reply(error: int, message: bytes, names: Mapping[int, str]) -> RouteReply:
    if error:
        return RouteReply(_KINDS.get(error, os.strerror(error).lower()))
    route = rtnetlink.decode_route(message, names, cached=True)
    if route is None:  # through a tunnel (RTA_ENCAP)
        return RouteReply("unicast")
    if route.kind != "unicast" or not route.hops:
        return RouteReply(route.kind, table=route.table)
    hop = route.hops[0]
    return RouteReply("unicast", hop.dev, hop.gateway, route.table, route.src)


@functools.lru_cache(maxsize=4096)  # the daemon asks the same after each look
def query(flow: Flow, iif: int = 0, oif: int = 0) -> bytes:
    """The body of a route lookup whose reply includes the table. `iif`, `oif`: link indexes."""
    raw_dst = rtnetlink.packed(flow.dst)
    raw_src = rtnetlink.packed(flow.src) if flow.src else b""
    # IPv6 always returns the table, and refuses the flag
    flags = 0 if flow.family == 6 else rt.RTM_F_LOOKUP_TABLE
    family, lengths = rtnetlink.AF[flow.family], (len(raw_dst) * 8, len(raw_src) * 8)
    body = [
        rtnetlink.ROUTE.pack(family, *lengths, 0, 0, 0, 0, 0, flags),
        attribute(rt.RTA_DST, raw_dst),
        attribute_u32(rt.RTA_UID, flow.uid),
    ]
    if raw_src:
        body.append(attribute(rt.RTA_SRC, raw_src))
    for kind, number in ((rt.RTA_IIF, iif), (rt.RTA_OIF, oif), (rt.RTA_MARK, flow.mark)):
        if number:
            body.append(attribute_u32(kind, number))
    if flow.ip_proto:  # otherwise IPv4 assumes UDP
        body.append(attribute(rt.RTA_IP_PROTO, bytes([flow.ip_proto])))
    if flow.ip_proto in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        for kind, port in ((rt.RTA_SPORT, flow.sport), (rt.RTA_DPORT, flow.dport)):
            if port:
                body.append(attribute(kind, struct.pack("!H", port)))
    return b"".join(body)

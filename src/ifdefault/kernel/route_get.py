"""The kernel's route lookup for a packet, as `ip route get` does it."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from ifdefault.kernel import rtnetlink
from ifdefault.kernel.netlink import Netlink, attribute, attribute_u32
from ifdefault.kernel.read import read_links
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.model.errors import reason
from ifdefault.model.kernel import Route


@dataclass(frozen=True, slots=True)
class RouteReply:
    """A route, or the kernel's error text."""

    route: Route | None = None
    refusal: str = ""


def route_get(
    dst: str,
    src: str = "",
    iif: str = "",
    oif: str = "",
    mark: int = 0,
    ip_proto: int = 0,
    ports: tuple[int, int] = (0, 0),
    uid: int = 0,
) -> RouteReply:
    """Look up the route of a packet, received on `iif` or, if that is "", sent by this host."""
    with Netlink() as netlink:
        names = {link.index: link.name for link in read_links(netlink)}
        indexes = {name: index for index, name in names.items()}
        query = encode(
            dst, src, indexes.get(iif, 0), indexes.get(oif, 0), mark, ip_proto, ports, uid
        )
        try:
            message = netlink.ask(rt.RTM_GETROUTE, query)
        except OSError as error:
            return RouteReply(refusal=reason(error))
        return RouteReply(rtnetlink.decode_route(message, names, cached=True))


def encode(
    dst: str,
    src: str = "",
    iif: int = 0,
    oif: int = 0,
    mark: int = 0,
    ip_proto: int = 0,
    ports: tuple[int, int] = (0, 0),
    uid: int = 0,
) -> bytes:
    """The body of a route lookup (RTM_GETROUTE) whose reply includes the table."""
    raw_dst, raw_src = rtnetlink.packed(dst), rtnetlink.packed(src) if src else b""
    six = ":" in dst
    family = socket.AF_INET6 if six else socket.AF_INET
    flags = (
        0 if six else rt.RTM_F_LOOKUP_TABLE
    )  # IPv6 always returns the table, and refuses the flag
    body = [
        rtnetlink.ROUTE.pack(family, len(raw_dst) * 8, len(raw_src) * 8, 0, 0, 0, 0, 0, flags),
        attribute(rt.RTA_DST, raw_dst),
        attribute_u32(rt.RTA_UID, uid),
    ]
    if raw_src:
        body.append(attribute(rt.RTA_SRC, raw_src))
    for kind, number in ((rt.RTA_IIF, iif), (rt.RTA_OIF, oif), (rt.RTA_MARK, mark)):
        if number:
            body.append(attribute_u32(kind, number))
    if ip_proto:  # otherwise IPv4 assumes UDP
        body.append(attribute(rt.RTA_IP_PROTO, bytes([ip_proto])))
    if ip_proto in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        for kind, port in zip((rt.RTA_SPORT, rt.RTA_DPORT), ports, strict=True):
            if port:
                body.append(attribute(kind, struct.pack("!H", port)))
    return b"".join(body)

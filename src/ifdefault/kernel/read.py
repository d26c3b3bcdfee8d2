"""Read the facts of this network namespace.

Rules: reads, never writes, and makes no decisions. Of table local only what is delivered to this
host is read: broadcast and multicast routes decide nothing. Sysctls are read for every interface
except loopback.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ifdefault.kernel import netns, nft, rtnetlink, sockdiag, sysctl
from ifdefault.kernel.ebpf import attach
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.nexthops import read_nexthops
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import HostError, KernelError, Problem
from ifdefault.model.kernel import (
    FORWARDING,
    TABLE_LOCAL,
    Address,
    Facts,
    Link,
    Neighbour,
    Route,
    Rule,
)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
GLOBAL_SYSCTLS = (
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/fwmark_reflect",
    "net/ipv6/fwmark_reflect",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/src_valid_mark",
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv4/ip_local_port_range",
    *FORWARDING.values(),
)
LINK_SYSCTLS = (
    "net/ipv4/conf/{}/rp_filter",
    "net/ipv4/conf/{}/src_valid_mark",
    "net/ipv4/conf/{}/forwarding",
    "net/ipv6/conf/{}/accept_ra",
    "net/ipv4/neigh/{}/unres_qlen_bytes",
    "net/ipv6/neigh/{}/unres_qlen_bytes",
)


LOCAL_MAX = 1024  # more routes in table local aren't read: the kernel is asked instead


def read_facts(*, rights: bool = True) -> Facts:
    """All facts that a plan needs. Raises KernelError, and HostError if a feature is missing.
    Without `rights`, what only root can read counts as absent: our nft tables."""
    try:
        with Netlink() as netlink:
            links = read_links(netlink)
            names = {link.index: link.name for link in links}
            routes, local = _routes(netlink, names)
            return Facts(
                links=links,
                addresses=tuple(_addresses(netlink, names)),
                routes=routes,
                local=local,
                rules=tuple(_rules(netlink)),
                neighbours=read_neighbours(netlink, names),
                sysctls=tuple(_sysctls(links)),
                sysctls_read_only=sysctl.read_only(),
                tables=nft.read_tables() if rights else (),
                hook=attach.read(),
                wildcard_udp=sockdiag.wildcard_udp(),
            )
    except OSError as error:
        raise KernelError(Problem("reading the kernel's tables", str(error))) from error


def network_id() -> str:
    """Identifies this network namespace among all since the machine was installed."""
    try:
        cookie = netns.cookie()
    except OSError:  # Linux before 5.14
        cookie = 0
    return f"{_BOOT.read_text('ascii', 'replace').strip()} {cookie}"


def read_links(netlink: Netlink) -> tuple[Link, ...]:
    messages = netlink.dump(rt.RTM_GETLINK, rtnetlink.link_query())
    return tuple(rtnetlink.decode_link(message) for message in messages)


def _of_families(netlink: Netlink, kind: int, query: Callable[[Family], bytes]) -> Iterator[bytes]:
    """The objects of both families. Without IPv6 (ipv6.disable=1) the kernel refuses the query, or
    returns IPv4's objects."""
    for family in FAMILIES:
        try:
            messages = netlink.dump(kind, query(family))
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                raise
            if family == 6 and sysctl.read(FORWARDING[6]) is None:
                continue
            what = f"this kernel has no policy rules for IPv{family}"
            remedy = "use a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES"
            raise HostError(Problem("kernel", what, remedy)) from error
        for message in messages:
            if message[0] == rtnetlink.AF[family]:
                yield message


def _addresses(netlink: Netlink, names: rtnetlink.Names) -> Iterator[Address]:
    for message in _of_families(netlink, rt.RTM_GETADDR, rtnetlink.address_query):
        if address := rtnetlink.decode_address(message, names):
            yield address


def _routes(
    netlink: Netlink, names: rtnetlink.Names
) -> tuple[tuple[Route, ...], tuple[Route, ...] | None]:
    """The routes of all tables except local, and those of table local."""
    routes: list[Route] = []
    local: list[bytes] = []
    nexthops = read_nexthops(netlink, names)
    for message in _of_families(netlink, rt.RTM_GETROUTE, rtnetlink.route_query):
        if rtnetlink.route_table(message) == TABLE_LOCAL:
            if rtnetlink.route_kind(message) == "local":
                local.append(message)
        elif route := rtnetlink.decode_route(message, names):
            if nexthops and not route.hops:
                hops = nexthops.get(rtnetlink.route_nexthop(message), ())
                route = replace(route, hops=hops)
            routes.append(route)
    if len(local) > LOCAL_MAX:
        return tuple(routes), None
    decoded = (rtnetlink.decode_route(message, names) for message in local)
    return tuple(routes), tuple(route for route in decoded if route)


def _rules(netlink: Netlink) -> Iterator[Rule]:
    for message in _of_families(netlink, rt.RTM_GETRULE, rtnetlink.rule_query):
        if rule := rtnetlink.decode_rule(message):
            yield rule


def read_neighbours(netlink: Netlink, names: rtnetlink.Names) -> tuple[Neighbour, ...]:
    messages = netlink.dump(rt.RTM_GETNEIGH, rtnetlink.neighbour_query())
    decoded = (rtnetlink.decode_neighbour(message, names) for message in messages)
    return tuple(neighbour for neighbour in decoded if neighbour)


def _sysctls(links: tuple[Link, ...]) -> Iterator[tuple[str, str]]:
    of_links = (
        pattern.format(link.name) for link in links if not link.loopback for pattern in LINK_SYSCTLS
    )
    for name in (*GLOBAL_SYSCTLS, *of_links):
        value = sysctl.read(name)
        if value is not None:
            yield name, value

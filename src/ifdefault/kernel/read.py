"""Read the facts of this network namespace.

Rules: reads, never writes, and makes no decisions. What it costs doesn't grow with what decides
nothing here: a table that no rule looks up isn't read, nor is more of a table than `ROUTES_MAX`
routes, and sysctls and neighbours are read for the interfaces that matter. What hasn't changed
isn't decoded again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from ifdefault.kernel import mptcp, nft, rtnetlink, rule_messages, sockdiag, sysctl
from ifdefault.kernel.decoded import Decoded
from ifdefault.kernel.ebpf import attach
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.nexthops import Nexthops, read_nexthops
from ifdefault.kernel.uapi import rtnetlink as rt
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import HostError, KernelError, Problem, reason
from ifdefault.model.kernel import (
    FORWARDING,
    PROTOCOL,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    Facts,
    Link,
    Neighbour,
    Route,
    Rule,
    Scope,
)

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
    "net/ipv6/conf/{}/accept_ra",
    "net/ipv4/neigh/{}/unres_qlen_bytes",
    "net/ipv6/neigh/{}/unres_qlen_bytes",
)

ROUTES_MAX, OTHERS_MAX = 16_384, 4096  # of main and each table of ours; of each other table
_PROTOCOLS_OF_DEFAULTS = (rt.RTPROT_RA, rt.RTPROT_DHCP, rt.RTPROT_STATIC, rt.RTPROT_BOOT)
LOCAL_MAX = 1024  # more routes in table local aren't read: the kernel is asked instead

Unread = tuple[tuple[Family, int], ...]


def read_facts(
    scope: Scope | None = None, *, rights: bool = True, after: Facts | None = None
) -> Facts:
    """All facts that a plan needs; without a scope, of all interfaces, and all routes of ours.
    Raises KernelError, and HostError if a feature is missing. Without `rights`, what only root can
    read counts as absent: our nft tables. `after`: what was read a moment ago, before rules, routes
    or nft tables of ours were changed: the rest is taken from it."""
    try:
        with Netlink() as netlink:
            links = after.links if after else read_links(netlink)
            names = {link.index: link.name for link in links}
            concerned = [link for link in links if scope is None or _concerns(scope, link)]
            on = [link.index for link in concerned] if scope else [0]
            rules = _rules(netlink)
            scope = scope or Scope(strays=True)
            if after:
                routes, unread = _routes_after(netlink, names, scope, after), after.unread
            else:
                routes, unread = _routes(netlink, names, scope, rules)
            return Facts(
                links=links,
                addresses=after.addresses if after else _addresses(netlink, names),
                routes=routes,
                unread=unread,
                local=after.local if after else _local(netlink, names),
                rules=rules,
                neighbours=read_neighbours(netlink, names, on),
                sysctls=tuple(_sysctls(concerned)),
                sysctls_read_only=sysctl.read_only(),
                tables=nft.read_tables() if rights else (),
                hook=attach.read(),
                mptcp=mptcp.read(),
                wildcard_udp=sockdiag.wildcard_udp(),
            )
    except OSError as error:
        raise KernelError(Problem("reading the kernel's tables", reason(error))) from error


def _concerns(scope: Scope, link: Link) -> bool:
    return link.name in scope.interfaces or link.index in scope.indexes


# What the last dump of each kind held.
_known_links = Decoded[Link](lambda message, _: rtnetlink.decode_link(message))
_known_rules = Decoded[Rule](lambda message, _: rule_messages.decode_rule(message))
_known_addresses = Decoded[Address](rtnetlink.decode_address)
_known_routes = Decoded[Route](rtnetlink.decode_route)
_known_own = Decoded[Route](rtnetlink.decode_route)
_known_local = Decoded[Route](rtnetlink.decode_route)


def read_links(netlink: Netlink) -> tuple[Link, ...]:
    return _known_links.decode(netlink.dump(rt.RTM_GETLINK, rtnetlink.link_query()), {})


def _of_families(netlink: Netlink, kind: int, query: Callable[[Family], bytes]) -> Iterator[bytes]:
    """The objects of both families."""
    for family in FAMILIES:
        yield from _of_family(netlink, family, kind, query(family))


def _of_family(
    netlink: Netlink, family: Family, kind: int, query: bytes, most: int | None = None
) -> list[bytes]:
    """The objects of one family, as `Netlink.dump` does. Without IPv6 (ipv6.disable=1) the kernel
    refuses the query, or returns IPv4's objects; a table without routes may not exist."""
    try:
        messages = netlink.dump(kind, query, most)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise
        if family == 6 and sysctl.read(FORWARDING[6]) is None:
            return []
        what = f"this kernel has no policy rules for IPv{family}"
        remedy = "use a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES"
        raise HostError(Problem("kernel", what, remedy)) from error
    return [message for message in messages if message[0] == rtnetlink.AF[family]]


def _addresses(netlink: Netlink, names: rtnetlink.Names) -> tuple[Address, ...]:
    messages = _of_families(netlink, rt.RTM_GETADDR, rtnetlink.address_query)
    return _known_addresses.decode(messages, names)


def _rules(netlink: Netlink) -> tuple[Rule, ...]:
    return _known_rules.decode(_of_families(netlink, rt.RTM_GETRULE, rule_messages.rule_query), {})


def _routes(
    netlink: Netlink, names: rtnetlink.Names, scope: Scope, rules: tuple[Rule, ...]
) -> tuple[tuple[Route, ...], Unread]:
    """The routes of the tables that are read, and the tables that are too large. Of main, these
    routes are the first ones and the defaults then; of others, the defaults."""
    found: dict[bytes, None] = {}
    unread: list[tuple[Family, int]] = []
    for family, table in sorted(scope.tables_read(rules)):
        most = ROUTES_MAX if table == TABLE_MAIN or table in scope.tables else OTHERS_MAX
        messages = _in_table(netlink, family, table, most)
        if len(messages) > most:
            unread.append((family, table))
            defaults = _defaults(netlink, family, table, messages)
            # copies of main's routes must fit into a table of ours, with its default
            first = messages[: ROUTES_MAX - 1] if table == TABLE_MAIN else []
            messages = [*first, *defaults]
        found.update(dict.fromkeys(messages))
    for family in FAMILIES if scope.strays else ():
        query = rtnetlink.route_query(family, protocol=PROTOCOL)
        found.update(dict.fromkeys(_of_family(netlink, family, rt.RTM_GETROUTE, query)))
    nexthops = read_nexthops(netlink, names)
    known = _known_routes if not nexthops else Decoded(partial(_with_hops, nexthops))
    return known.decode(found, names), tuple(unread)


def _in_table(
    netlink: Netlink, family: Family, table: int, most: int, **selectors: Any
) -> list[bytes]:
    """The routes of a table, as `route_query` and `Netlink.dump` say."""
    query = rtnetlink.route_query(family, table, **selectors)
    return _of_family(netlink, family, rt.RTM_GETROUTE, query, most)


def _routes_after(
    netlink: Netlink, names: rtnetlink.Names, scope: Scope, after: Facts
) -> tuple[Route, ...]:
    """The routes, if only those of the scope's tables have changed."""
    own = (
        message
        for family in FAMILIES
        for table in sorted(scope.tables)
        for message in _in_table(netlink, family, table, ROUTES_MAX)
    )
    others = (r for r in after.routes if r.table not in scope.tables and r.protocol != PROTOCOL)
    return (*others, *_known_own.decode(own, names))


def _defaults(netlink: Netlink, family: Family, table: int, first: list[bytes]) -> list[bytes]:
    """The default routes of a table that is too large, of which these routes are the first. IPv4's
    are among them, IPv6's come last; there, those are asked for that no routing daemon added."""
    some = list(first)
    for protocol in _PROTOCOLS_OF_DEFAULTS if family == 6 else ():
        some += _in_table(netlink, family, table, ROUTES_MAX, protocol=protocol)
    return [message for message in some if rtnetlink.is_default(message)]


def _with_hops(nexthops: Nexthops, message: bytes, names: rtnetlink.Names) -> Route | None:
    """A route whose hops may be those of an object."""
    route = rtnetlink.decode_route(message, names)
    if route is None or route.hops:
        return route
    return replace(route, hops=nexthops.get(rtnetlink.route_nexthop(message), ()))


def _local(netlink: Netlink, names: rtnetlink.Names) -> tuple[Route, ...] | None:
    """The routes of table local to this host, without broadcast and multicast; None: too many."""
    local: list[bytes] = []
    for family in FAMILIES:
        local += _in_table(netlink, family, TABLE_LOCAL, LOCAL_MAX, kind="local")
    if len(local) > LOCAL_MAX:
        return None
    return _known_local.decode(local, names)


def read_neighbours(
    netlink: Netlink, names: rtnetlink.Names, indexes: Iterable[int] = (0,)
) -> tuple[Neighbour, ...]:
    """The neighbours on these interfaces; 0: on all."""
    messages = (
        message
        for index in indexes
        for message in netlink.dump(rt.RTM_GETNEIGH, rtnetlink.neighbour_query(index))
    )
    decoded = (rtnetlink.decode_neighbour(message, names) for message in messages)
    return tuple(neighbour for neighbour in decoded if neighbour)


def _sysctls(links: list[Link]) -> Iterator[tuple[str, str]]:
    of_links = (
        pattern.format(link.name) for link in links if not link.loopback for pattern in LINK_SYSCTLS
    )
    for name in (*GLOBAL_SYSCTLS, *of_links):
        value = sysctl.read(name)
        if value is not None:
            yield name, value

"""Kernel state: as it is (Facts), as it should be (Desired), and how to get there (Operation).

Rules: every value is frozen and comparable. Addresses, prefixes and MACs are canonical text
("203.0.113.10", "2001:db8::/32", lower case); interfaces are identified by name. `family` is 4 or
6. Nothing here reads a clock, a file or the kernel.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.many import Many
from ifdefault.model.mptcp import (
    DeleteEndpoint,
    Endpoint,
    MptcpLimits,
    MptcpState,
    PutEndpoint,
    SetMptcpLimit,
)
from ifdefault.model.packet_filter import FilterChain, ForeignMark

PROTOCOL = 171  # rtnetlink protocol number of every route and rule of ours
PROTOCOL_RA, PROTOCOL_DHCP = 9, 16  # of what was learned so (linux/rtnetlink.h, RTPROT_…)
NFT_TABLE = "ifdefault"  # our nftables tables, family inet: marks and the source check
FORWARD_TABLE = "ifdefault_forward"  # the services of [[forward]], which may be many
OWN_TABLES = (NFT_TABLE, FORWARD_TABLE)
RULESET_DIGEST = "sha256:"  # prefix of the comment of our tables
TABLE_DEFAULT = 253
TABLE_MAIN = 254
TABLE_LOCAL = 255
FORWARDING: dict[Family, str] = {  # sysctls
    4: "net/ipv4/ip_forward",
    6: "net/ipv6/conf/all/forwarding",
}


# --- facts --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """`kind` as `ip -d link` shows it (bridge, vlan, wireguard, …), "" for hardware. `master`: the
    index of the bridge, bond or VRF that it is a part of. `forwards`: whether IPv4 packets that
    come in on it are forwarded, as far as it has its own say."""

    index: int
    name: str
    up: bool = True  # administratively
    carrier: bool = True
    group: int = 0
    mac: str = ""
    loopback: bool = False
    point_to_point: bool = False
    kind: str = ""
    master: int = 0
    altnames: tuple[str, ...] = ()
    forwards: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the host. `scope`: 0 global, 253 link, 254 host."""

    family: Family
    dev: str
    address: str
    prefixlen: int
    scope: int = 0
    peer: str = ""  # point-to-point: the remote address
    secondary: bool = False  # IPv4 secondary, IPv6 temporary (RFC 8981)
    deprecated: bool = False
    tentative: bool = False  # IPv6 duplicate address detection is in progress, or failed


@dataclass(frozen=True, order=True, slots=True)
class Hop:
    """One next hop of a route. `gateway` "" is on-link; it may be IPv6 on an IPv4 route."""

    dev: str
    gateway: str = ""
    onlink: bool = False
    weight: int = 1


@dataclass(frozen=True, order=True, slots=True)
class Route:
    """A route of one table. `dst` is "default" or a prefix; `kind` as in rtnetlink(7)."""

    family: Family
    table: int
    dst: str
    metric: int = 0
    kind: str = "unicast"  # unicast local broadcast blackhole unreachable prohibit throw …
    hops: tuple[Hop, ...] = ()
    src: str = ""
    scope: int = 0
    protocol: int = 0
    preference: str = ""  # IPv6 router preference (RFC 4191): "low", "high"
    metrics: tuple[tuple[int, int], ...] = ()  # RTAX_ number, value: mtu, advmss, initcwnd …
    from_prefix: str = ""  # IPv6 source-specific route


@dataclass(frozen=True, order=True, slots=True)
class Rule:
    """A policy rule. `action`: lookup goto nop blackhole unreachable prohibit.

    Includes selectors that our rules don't use, but foreign rules may.
    """

    family: Family
    priority: int
    action: str = "lookup"
    table: int = 0
    goto: int = 0
    src: str = ""
    dst: str = ""
    iif: str = ""
    oif: str = ""
    mark: int = 0
    mask: int = 0  # 0: no mark selector
    invert: bool = False
    suppress_prefixlength: int = -1  # -1: none
    suppress_ifgroup: int = -1
    ip_proto: int = 0
    sport: tuple[int, int] = (0, 0)
    dport: tuple[int, int] = (0, 0)
    uids: tuple[int, int] = (-1, -1)
    tos: int = 0
    unfollowed: bool = False  # has an unsupported selector: VRF, tunnel id, DSCP, flow label
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    family: Family
    dev: str
    address: str
    mac: str = ""  # "" while unresolved
    router: bool = False
    confirmed: bool = False  # it answered a moment ago; otherwise its MAC may just be remembered


@dataclass(frozen=True, slots=True)
class NftTable:
    """A table with our name in the kernel. `digest`: of the text that we loaded (the table's
    comment), "" if it isn't ours; `listing`: a digest of its contents without counters and elements
    that packets added."""

    digest: str = ""
    listing: str = ""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The text of a table that we loaded last, and the resulting table in the kernel."""

    text: str
    table: NftTable


Loaded = tuple[tuple[str, Ruleset], ...]  # by table


@dataclass(frozen=True, slots=True)
class Scope:
    """What is read of things that others may have made in great numbers.

    `tables`: whose routes are read, besides main and those that a rule looks up. `interfaces` and
    `indexes`: of interfaces whose sysctls and neighbours are read. `strays`: whether routes of ours
    are looked for in all other tables, which takes the longer the more routes these have."""

    tables: frozenset[int] = frozenset()
    interfaces: frozenset[str] = frozenset()
    indexes: frozenset[int] = frozenset()
    strays: bool = False

    def tables_read(self, rules: Iterable[Rule]) -> set[tuple[Family, int]]:
        """All tables whose routes are read, where there are these rules."""
        always = {(family, table) for family in FAMILIES for table in (TABLE_MAIN, *self.tables)}
        by_rules = {(r.family, r.table) for r in rules if r.action == "lookup" and r.table}
        return (always | by_rules) - {(family, TABLE_LOCAL) for family in FAMILIES}


@functools.lru_cache(maxsize=4)  # every plan has the same few large texts
def ruleset_digest(text: str) -> str:
    """The comment of a table that was loaded from this text."""
    return RULESET_DIGEST + hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is read from the kernel for a plan, in kernel order where order matters. What may be
    large is a `Many`. What comes after `wildcard_udp` is read only to find conflicts."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()  # of main and of the tables that rules look up; ours in any
    unread: tuple[tuple[Family, int], ...] = ()  # tables that are too large: see `kernel.read`
    local: tuple[Route, ...] | None = None  # table local's, of kind local; None: not read, too many
    rules: tuple[Rule, ...] = ()  # in kernel order, both families
    neighbours: tuple[Neighbour, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()  # those that we may set or depend on
    sysctls_read_only: bool = False  # they can't be written, as in containers
    tables: tuple[tuple[str, NftTable], ...] = ()  # those of OWN_TABLES that exist
    hook: Hook | None = None  # our programs on connect()
    mptcp: MptcpState | None = None  # None: a kernel without it
    foreign_marks: tuple[ForeignMark, ...] = ()
    wildcard_udp: tuple[tuple[Family, int], ...] = ()  # (family, port) of wildcard sockets
    listening: tuple[tuple[str, str, int], ...] = ()  # (transport, address, port) of servers
    filters: tuple[FilterChain, ...] = ()  # others' chains that packets to served ports pass
    forward_filters: tuple[FilterChain, ...] = ()  # likewise what is forwarded
    reverse_path_filters: tuple[tuple[str, Family], ...] = ()  # rules of nft, behind dstnat

    def __post_init__(self) -> None:
        for name in ("links", "addresses", "routes", "local", "rules"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Many.of(value))


# --- desired state ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Uplink:
    """An uplink as resolved from config and facts. `pending` is why it can't be used yet.

    `gateways` and `sources` have at most one entry per family: the next hop ("" on a link without
    one) and the `src` of the default route.
    """

    name: str
    number: int  # 1..31, stable across restarts and edits
    interface: str
    table: int
    arrival_mark: int
    outgoing_mark: int
    mark_mask: int
    rank: int = 0
    weight: int = 1
    addresses: tuple[Address, ...] = ()
    gateways: tuple[tuple[Family, str], ...] = ()
    sources: tuple[tuple[Family, str], ...] = ()
    router_macs: tuple[str, ...] = ()
    mechanism: str = "source"  # source | mark | conntrack
    why: str = ""  # reason for the mechanism
    pending: str = ""
    routed: tuple[str, ...] = ()  # prefixes that the provider routes to the host
    routers: tuple[str, ...] = ()  # those that the gateway was chosen from, if there are several

    def gateway(self, family: Family) -> str | None:
        """The next hop of this family's default route; "": on-link, None: no default route."""
        return dict(self.gateways).get(family)

    def source(self, family: Family) -> str | None:
        return dict(self.sources).get(family)


@dataclass(frozen=True, slots=True)
class Redirect:
    """Wildcard UDP servers reply to clients from `first` to `last` from `address`; packets to other
    addresses of the host are redirected there."""

    family: Family
    first: str
    last: str
    address: str


# Of the balance, per family. A prime: whoever connects to several servers in a fixed order comes to
# each slot equally often with each of them.
SLOTS = 251


@dataclass(frozen=True, slots=True)
class Hook:
    """The behaviour of the cgroup programs on connect(): they set an outgoing mark on the sockets
    of this network namespace that have no mark and aren't bound.

    `marks`, by family: SLOTS marks, used in turn; empty: no balance. `spared`: outgoing rules whose
    connections aren't balanced. `cgroups`: (path, IPv4 mark, IPv6 mark) of cgroups all of whose
    sockets get a mark, 0 for none; the deepest such cgroup of a process counts.
    """

    mask: int
    marks: tuple[tuple[Family, tuple[int, ...]], ...] = ()
    sticky: bool = False  # the slot depends on the destination address
    udp: bool = False
    spared: tuple[Rule, ...] = ()
    cgroups: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """All that we install in the kernel. `rules` are in their final order."""

    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()  # those of OWN_TABLES that are needed, with their text
    hook: Hook | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, int], ...] = ()  # (interface, link group)
    endpoints: tuple[Endpoint, ...] = ()
    mptcp_limits: MptcpLimits = ()  # those that are set
    # contained in NFT_TABLE; needed for ForgetFlows
    redirects: tuple[Redirect, ...] = ()
    udp_ports: tuple[tuple[Family, int], ...] = ()  # those that are redirected
    udp_addresses: tuple[str, ...] = ()  # of all uplinks, which are redirected to one another
    mark_mask: int = 0


# --- operations ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetSysctl:
    name: str
    value: str
    was: str


@dataclass(frozen=True, slots=True)
class SetGroup:
    dev: str
    group: int
    was: int


@dataclass(frozen=True, slots=True)
class PutRoute:
    """Add a route, or replace the one of the same table, destination and metric (`was`)."""

    route: Route
    was: Route | None = None


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    route: Route


@dataclass(frozen=True, slots=True)
class AddRule:
    """Add a rule after those of its priority."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class DeleteRule:
    """Delete the first rule that is equal to this one."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class LoadNft:
    """Replace one of our nft tables by `text` in one transaction; "" deletes it."""

    table: str
    text: str


@dataclass(frozen=True, slots=True)
class PutHook:
    """Attach or replace the programs on connect(); None removes them."""

    hook: Hook | None


@dataclass(frozen=True, slots=True)
class ForgetFlows:
    """Delete the conntrack entries of UDP flows to redirected ports whose replies would now have
    another source than the entry expects (see plan.udp_wildcard)."""

    redirects: tuple[Redirect, ...]
    ports: tuple[tuple[Family, int], ...]
    addresses: tuple[str, ...]
    mask: int


Operation = (
    SetSysctl
    | SetGroup
    | PutRoute
    | DeleteRoute
    | AddRule
    | DeleteRule
    | LoadNft
    | PutHook
    | ForgetFlows
    | SetMptcpLimit
    | PutEndpoint
    | DeleteEndpoint
)

"""The nouns: what a host is (Facts), what its owner wants (Config), what should be (Desired),
and how to get there (Operation).

Rules: every value is frozen and comparable, so that equality, goldens and diffs come free.
Addresses, prefixes and MACs are canonical text ("203.0.113.10", "2001:db8::/32", lower case);
interfaces go by name. `family` is 4 or 6. Nothing here reads a clock, a file or the kernel.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

from ifdefault.model.config import Family

PROTOCOL = 171  # rtnetlink protocol number of every route and rule of ours
NFT_TABLE = "ifdefault"  # our nftables tables, family inet: marks and the source check
FORWARD_TABLE = "ifdefault_forward"  # the forwarded services, which may be many
OWN_TABLES = (NFT_TABLE, FORWARD_TABLE)
RULESET_DIGEST = "sha256:"  # how the comment of a table of ours begins
TABLE_DEFAULT = 253
TABLE_MAIN = 254
TABLE_LOCAL = 255
FORWARDING: dict[Family, str] = {  # sysctls
    4: "net/ipv4/ip_forward",
    6: "net/ipv6/conf/all/forwarding",
}


# --- what the host is ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    up: bool = True  # administratively
    carrier: bool = True
    group: int = 0
    mac: str = ""
    loopback: bool = False
    point_to_point: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the host. `scope`: 0 global, 253 link, 254 host."""

    family: Family
    dev: str
    address: str
    prefixlen: int
    scope: int = 0
    peer: str = ""  # point-to-point: the far end
    secondary: bool = False  # IPv4 secondary, IPv6 temporary (RFC 8981)
    deprecated: bool = False
    tentative: bool = False  # IPv6 duplicate address detection still runs, or failed


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

    Selectors that we never use ourselves but must understand in others' rules are kept as well.
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
    unfollowed: bool = False  # selects by what we don't follow: VRF, tunnel id, DSCP, flow label
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    family: Family
    dev: str
    address: str
    mac: str = ""  # "" while unresolved
    router: bool = False


@dataclass(frozen=True, slots=True)
class NftTable:
    """A table of our name as the kernel holds it: `digest` of what we loaded (the table's comment),
    "" if that wasn't us, and `listing`, a digest of its contents as listed, counters and elements
    added by packets aside."""

    digest: str = ""
    listing: str = ""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The text of a table of ours as we loaded it last, and what the kernel made of it."""

    text: str
    table: NftTable


Loaded = tuple[tuple[str, Ruleset], ...]  # by table


@functools.lru_cache(maxsize=4)  # the same few large texts, plan after plan
def ruleset_digest(text: str) -> str:
    """By what a table in the kernel is known to have been loaded from this text."""
    return RULESET_DIGEST + hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything we read of the kernel, at one time, in kernel order where order matters."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()  # all tables
    rules: tuple[Rule, ...] = ()  # in kernel order, both families
    neighbours: tuple[Neighbour, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()  # those that we may set or must know
    tables: tuple[tuple[str, NftTable], ...] = ()  # those of OWN_TABLES that are there
    hook: Hook | None = None  # ours on connect()
    foreign_marks: tuple[tuple[int, str], ...] = ()  # (bits, where) that others' rulesets touch
    wildcard_udp: tuple[tuple[Family, int], ...] = ()  # (family, port) of sockets bound to any
    # read only where conflicts are looked for:
    listening: tuple[tuple[str, str, int], ...] = ()  # (transport, address, port) of servers
    dropping: tuple[tuple[str, str, str], ...] = ()  # (family, table, chain) at forward, by policy


# --- what should be -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Uplink:
    """An uplink as resolved from config and facts. `pending` says why it can't be used yet.

    `gateways` and `sources` hold at most one entry a family: the next hop ("" on a link without
    one) and the `src` of its default.
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
    why: str = ""  # why this mechanism
    pending: str = ""
    routed: tuple[str, ...] = ()  # prefixes that the provider routes to the host

    def gateway(self, family: Family) -> str | None:
        """The next hop of this family's default; "" means on-link, None that there is none."""
        return dict(self.gateways).get(family)

    def source(self, family: Family) -> str | None:
        return dict(self.sources).get(family)


@dataclass(frozen=True, slots=True)
class Redirect:
    """Clients from `first` to `last` are answered from `address` by a UDP socket that is bound to
    none; packets to other addresses of the host are redirected there."""

    family: Family
    first: str
    last: str
    address: str


SLOTS = 256  # of the balance, a family


@dataclass(frozen=True, slots=True)
class Hook:
    """What the cgroup program on connect() does with this network namespace's own sockets that
    have no mark and aren't bound: it gives them a outgoing mark.

    `marks`, by family: SLOTS of them, which are taken in turn; none: no balance.
    `spared`: what outgoing rules select, left alone. `cgroups`: (path, IPv4's mark, IPv6's mark) of
    whose processes all sockets get a mark, those that the deepest such cgroup names; 0 is none.
    """

    mask: int
    marks: tuple[tuple[Family, tuple[int, ...]], ...] = ()
    sticky: bool = False  # the slot is told by the destination address
    udp: bool = False
    spared: tuple[Rule, ...] = ()
    cgroups: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """All that we put into the kernel. `rules` are in the order in which they must stand."""

    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()  # those of OWN_TABLES that are needed, and their text
    hook: Hook | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, int], ...] = ()  # (interface, link group)
    # part of NFT_TABLE, told apart for ForgetFlows
    redirects: tuple[Redirect, ...] = ()
    udp_ports: tuple[tuple[Family, int], ...] = ()  # those that are redirected
    udp_addresses: tuple[str, ...] = ()  # all of the uplinks', which are redirected to one another
    mark_mask: int = 0


# --- how to get there ---------------------------------------------------------------------


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
    """Add a rule behind those of its priority."""

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
    """Lay the hook on connect(), or replace it; None takes it away."""

    hook: Hook | None


@dataclass(frozen=True, slots=True)
class ForgetFlows:
    """Delete the conntrack entries of UDP flows to redirected ports whose answers would now come
    from another address than the entry leads to, redirected or not (see plan.udp_wildcard)."""

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
)

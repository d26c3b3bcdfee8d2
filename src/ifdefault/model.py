"""The nouns: what a host is (Facts), what its owner wants (Config), what should be (Desired),
and how to get there (Operation).

Rules: every value is frozen and comparable, so that equality, goldens and diffs come free.
Addresses, prefixes and MACs are canonical text ("203.0.113.10", "2001:db8::/32", lower case);
interfaces go by name. `family` is 4 or 6. Nothing here reads a clock, a file or the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.zones import DnsConfig

Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)

TruthMode = Literal["auto", "drop", "count", "off"]
ReturnPath = Literal["auto", "source", "mark", "conntrack"]
ProbeKind = Literal["icmp", "tcp", "http", "https", "dns"]

PROTOCOL = 171  # rtnetlink protocol number of every route and rule of ours
NFT_TABLE = "ifdefault"  # our one nftables table, family inet
TABLE_DEFAULT = 253
TABLE_MAIN = 254
TABLE_LOCAL = 255


# --- what the owner wants -----------------------------------------------------------------


@dataclass(frozen=True, order=True, slots=True)
class Probe:
    """A question to a target beyond the gateway, written as a URL: `icmp://192.0.2.1`,
    `tcp://example.net:443`, `https://example.net/health`, `dns://192.0.2.53/example.net`."""

    kind: ProbeKind
    host: str  # an address or a name
    port: int = 0
    path: str = ""  # http: path and query; dns: the name that is asked for
    statuses: tuple[int, ...] = ()  # http: those that count as an answer; () is any below 400

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port not in (0, _PORTS.get(self.kind)) else ""
        slash = "/" if self.kind == "dns" and self.path else ""
        return f"{self.kind}://{host}{port}{slash}{self.path}"


_PORTS = {"http": 80, "https": 443, "dns": 53}


@dataclass(frozen=True, order=True, slots=True)
class UplinkConfig:
    """One `[uplink.NAME]` of the config; empty tuples mean "read it from the kernel"."""

    name: str
    interface: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    router_macs: tuple[str, ...] = ()
    rank: int = 0  # the lowest rank carries the normal default
    weight: int = 1  # among equal ranks the greatest weight does
    probes: tuple[Probe, ...] | None = None  # None: those of [health]
    public: tuple[str, ...] = ()  # what the DNS is to say instead of `addresses`, or DISCOVER


@dataclass(frozen=True, order=True, slots=True)
class HostConfig:
    """The `[host]` of the config."""

    mark_mask: int = 0x3F000000  # six adjacent bits: one for the kind, five for the uplink
    table_base: int = 1000  # table of uplink n is base + n
    rule_priority: int = 5000  # first priority of the return-path block; it may move below
    interface_group: int = 171  # the link group that marks uplinks for suppress_ifgroup
    truth_meter: TruthMode = "auto"
    return_path: ReturnPath = "auto"
    udp_wildcard: Literal["auto", "off"] | tuple[int, ...] = "auto"


@dataclass(frozen=True, order=True, slots=True)
class HealthConfig:
    """The `[health]` of the config: what is probed, and how it is judged."""

    probes: tuple[Probe, ...] = tuple(
        Probe("icmp", address)
        for address in (
            # public resolvers of four operators, anycast, in both families
            *("1.1.1.1", "8.8.8.8", "9.9.9.9", "208.67.222.222"),
            *("2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe", "2620:119:35::35"),
        )
    )
    rounds_per_s: float = 2.0  # probe rounds of a path when all is quiet
    false_alarm_days: float = 60.0  # mean time between false alarms of one path
    recover_s: float = 2.5  # how long answers must come before a path is up again
    damp_s: float = 60.0  # the longest such time, of one that flaps
    degraded_loss: float = 0.1  # share of rounds; 0 never
    degraded_rtt_ms: float = 0.0  # 0 never
    on_down: Literal["free", "keep"] = "free"  # outgoing connections of a dead uplink


@dataclass(frozen=True, order=True, slots=True)
class DaemonConfig:
    """The `[daemon]` of the config."""

    user: str = "ifdefault"  # who hears the Internet
    hook_user: str = "ifdefault-hook"


@dataclass(frozen=True, order=True, slots=True)
class HookConfig:
    """The `[hooks]` of the config: an executable for each event, "" for none."""

    up: str = ""
    degraded: str = ""
    down: str = ""
    default: str = ""  # the normal default moved
    timeout_s: float = 10.0


@dataclass(frozen=True, order=True, slots=True)
class Config:
    uplinks: tuple[UplinkConfig, ...]
    host: HostConfig = HostConfig()
    health: HealthConfig = HealthConfig()
    daemon: DaemonConfig = DaemonConfig()
    hooks: HookConfig = HookConfig()
    dns: DnsConfig = DnsConfig()


# --- what the host is ---------------------------------------------------------------------


@dataclass(frozen=True, order=True, slots=True)
class Link:
    index: int
    name: str
    up: bool = True  # administratively
    carrier: bool = True
    group: int = 0
    mac: str = ""
    loopback: bool = False
    point_to_point: bool = False


@dataclass(frozen=True, order=True, slots=True)
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


@dataclass(frozen=True, order=True, slots=True)
class Neighbour:
    family: Family
    dev: str
    address: str
    mac: str = ""  # "" while unresolved
    router: bool = False


@dataclass(frozen=True, order=True, slots=True)
class NftTable:
    """Our table as the kernel holds it: `digest` of what we loaded (the table's comment), and
    `listing`, a digest of its contents as listed, counters and elements added by packets aside."""

    digest: str = ""
    listing: str = ""


@dataclass(frozen=True, order=True, slots=True)
class Facts:
    """Everything we read of the kernel, at one time, in kernel order where order matters."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()  # all tables
    rules: tuple[Rule, ...] = ()  # in kernel order, both families
    neighbours: tuple[Neighbour, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()  # those that we may set or must know
    nft: NftTable | None = None  # None: our table isn't there
    foreign_marks: tuple[tuple[int, str], ...] = ()  # (bits, where) that others' rulesets touch
    wildcard_udp: tuple[tuple[Family, int], ...] = ()  # (family, port) of sockets bound to any


# --- what should be -----------------------------------------------------------------------


@dataclass(frozen=True, order=True, slots=True)
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
    chosen_mark: int
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

    def gateway(self, family: Family) -> str | None:
        """The next hop of this family's default; "" means on-link, None that there is none."""
        return dict(self.gateways).get(family)

    def source(self, family: Family) -> str | None:
        return dict(self.sources).get(family)


@dataclass(frozen=True, order=True, slots=True)
class Redirect:
    """Clients from `first` to `last` are answered from `address` by a UDP socket that is bound to
    none; packets to other addresses of the host are redirected there."""

    family: Family
    first: str
    last: str
    address: str


@dataclass(frozen=True, order=True, slots=True)
class Desired:
    """All that we put into the kernel. `rules` are in the order in which they must stand."""

    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    nft: str = ""  # the ruleset's text; "" for no table
    sysctls: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, int], ...] = ()  # (interface, link group)
    # part of `nft`, told apart for ForgetFlows
    redirects: tuple[Redirect, ...] = ()
    udp_ports: tuple[tuple[Family, int], ...] = ()  # those that are redirected
    udp_addresses: tuple[str, ...] = ()  # all of the uplinks', which are redirected to one another
    mark_mask: int = 0


# --- how to get there ---------------------------------------------------------------------


@dataclass(frozen=True, order=True, slots=True)
class SetSysctl:
    name: str
    value: str
    was: str


@dataclass(frozen=True, order=True, slots=True)
class SetGroup:
    dev: str
    group: int
    was: int


@dataclass(frozen=True, order=True, slots=True)
class PutRoute:
    """Add a route, or replace the one of the same table, destination and metric (`was`)."""

    route: Route
    was: Route | None = None


@dataclass(frozen=True, order=True, slots=True)
class DeleteRoute:
    route: Route


@dataclass(frozen=True, order=True, slots=True)
class AddRule:
    """Add a rule behind those of its priority."""

    rule: Rule


@dataclass(frozen=True, order=True, slots=True)
class DeleteRule:
    """Delete the first rule that is equal to this one."""

    rule: Rule


@dataclass(frozen=True, order=True, slots=True)
class LoadNft:
    """Replace our nft table by `text` in one transaction; "" deletes it."""

    text: str


@dataclass(frozen=True, order=True, slots=True)
class ForgetFlows:
    """Delete the conntrack entries of UDP flows to redirected ports whose answers would now come
    from another address than the entry leads to, redirected or not (see plan.wildcard)."""

    redirects: tuple[Redirect, ...]
    ports: tuple[tuple[Family, int], ...]
    addresses: tuple[str, ...]
    mask: int


Operation = (
    SetSysctl | SetGroup | PutRoute | DeleteRoute | AddRule | DeleteRule | LoadNft | ForgetFlows
)

"""The config as values: a class for each table of ifdefault.toml(5).

Rules: as in `model.kernel`. Every default value is stated here, and only here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.model.dns import DnsConfig

Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)
SourceCheckMode = Literal["auto", "drop", "count", "off"]
ReturnPath = Literal["auto", "source", "mark", "conntrack"]
ProbeKind = Literal["icmp", "tcp", "http", "https", "dns"]
Transport = Literal["tcp", "udp"]
Severity = Literal["info", "warning", "error"]  # of an event
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")  # in ascending order
OnReturn = Literal["stay", "end"]
OnBudget = Literal["warn", "standby", "down"]
EVENT_KINDS = (
    *(
        "apply",
        "budget",
        "config",
        "dns",
        "down",
        "ended",
        "engine",
        "frontend",
        "gateway",
        "monitor",
    ),
    *("path", "primary", "reload", "repair", "self-check", "server", "state", "tunnel", "uplink"),
)
APPRISE_MISSING = "apprise isn't installed"
APPRISE_REMEDY = "install it: apt install apprise, or pip install ifdefault[apprise]"
DEFAULT_PORTS = {"http": 80, "https": 443, "dns": 53}  # of a probe, by its kind


@dataclass(frozen=True, order=True, slots=True)
class Probe:
    """A probe of a target beyond the gateway, written as a URL: `icmp://192.0.2.1`,
    `tcp://example.net:443`, `https://example.net/health`, `dns://192.0.2.53/example.net`."""

    kind: ProbeKind
    host: str  # an address or a name
    port: int = 0
    path: str = ""  # http: path and query; dns: the name to query
    statuses: tuple[int, ...] = ()  # http: those that count as an answer; (): all below 400

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port not in (0, DEFAULT_PORTS.get(self.kind)) else ""
        slash = "/" if self.kind == "dns" and self.path else ""
        return f"{self.kind}://{host}{port}{slash}{self.path}"


@dataclass(frozen=True, slots=True)
class UplinkConfig:
    """One `[uplink.NAME]`; what is empty is read from the kernel."""

    name: str
    interface: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    router_macs: tuple[str, ...] = ()
    rank: int = 0  # the usable uplink with the lowest rank is primary
    weight: int = 1  # among equal ranks, the greatest weight
    probes: tuple[Probe, ...] | None = None  # None: those of [health]
    public: tuple[str, ...] = ()  # published in the DNS instead of `addresses`, or DISCOVER
    routed: tuple[str, ...] = ()  # prefixes that this provider routes to the host
    budget_bytes: int = 0  # a month's traffic, in and out; 0: unlimited
    reset_day: int = 1  # of the month, when the provider begins to count anew
    on_budget: OnBudget = "warn"  # once it is used up
    metered: bool = False  # it costs by volume, and so is a standby
    hours: tuple[int, int] | None = None  # minutes after midnight, local time: else a standby
    capacity: tuple[int, int] | None = None  # bit/s in and out; None: not considered
    # outgoing connections that it carries when a better uplink is usable again, and how long they
    # may go on until then; from [outgoing] where the uplink doesn't say
    on_return: OnReturn = "stay"
    grace_s: int = 30

    @property
    def is_counted(self) -> bool:
        """Whether the engine keeps count of what it carries in a month."""
        return self.metered or self.budget_bytes > 0


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The `[host]` of the config."""

    mark_mask: int = 0x3F000000  # six adjacent bits: the top one for the kind, five for the uplink
    table_base: int = 1000  # table of uplink n is base + n
    rule_priority: int = 5000  # first priority of the return-path block; it may be lowered
    interface_group: int = 171  # the link group that marks uplinks for suppress_ifgroup
    source_check: SourceCheckMode = "auto"
    return_path: ReturnPath = "auto"
    udp_wildcard: Literal["auto", "off"] | tuple[int, ...] = "auto"
    forwarded: Literal["follow", "off"] = "follow"  # track flows that other programs' rules forward


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """The `[health]` of the config: what is probed, and the limits of the failure detector."""

    probes: tuple[Probe, ...] = tuple(
        Probe("icmp", address)
        for address in (
            # public resolvers of four operators, anycast, in both families
            *("1.1.1.1", "8.8.8.8", "9.9.9.9", "208.67.222.222"),
            *("2606:4700:4700::1111", "2001:4860:4860::8888", "2620:fe::fe", "2620:119:35::35"),
        )
    )
    rounds_per_s: float = 2.0  # probe rounds of a path without losses
    false_alarm_days: float = 60.0  # mean time between false alarms of one path
    recover_s: float = 2.5  # how long a path must answer before it is up again
    damp_s: float = 60.0  # the longest such time, for a path that flaps
    degraded_loss: float = 0.1  # share of rounds; 0: never
    degraded_rtt_ms: float = 0.0  # 0: never
    on_down: Literal["end", "keep"] = "end"  # outgoing connections of an uplink that is down


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """The `[daemon]` of the config."""

    user: str = "ifdefault"  # of the process that receives packets from the Internet
    hook_user: str = "ifdefault-hook"


@dataclass(frozen=True, slots=True)
class HookConfig:
    """The `[hooks]` of the config: an executable for each event, "" for none."""

    up: str = ""
    degraded: str = ""
    down: str = ""
    primary: str = ""  # another uplink became primary
    timeout_s: float = 10.0


@dataclass(frozen=True, order=True, slots=True)
class Ports:
    """Ports of one transport protocol, `first` to `last`; one port where they are equal."""

    transport: Transport
    first: int
    last: int

    def __str__(self) -> str:
        more = f"-{self.last}" if self.last != self.first else ""
        return f"{self.transport}:{self.first}{more}"


@dataclass(frozen=True, slots=True)
class ForwardServer:
    """A server of a service. `port` 0: the port that the client connected to. `weight` 0: it is
    drained, and gets no new connections."""

    address: str
    port: int = 0
    weight: int = 1


@dataclass(frozen=True, slots=True)
class ForwardConfig:
    """One `[[forward]]` of the config: a service of servers behind the host."""

    listen: tuple[Ports, ...]
    to: tuple[ForwardServer, ...]  # each family uses the servers with addresses of it
    uplinks: tuple[str, ...] = ()  # on whose addresses it is offered; (): all
    check: str = "tcp"  # "tcp": connect; "off"; or the path to GET, "/health"
    on_down: Literal["next", "reset"] = "next"  # for the share of a server that is down


@dataclass(frozen=True, slots=True)
class OutgoingRule:
    """One `[[outgoing.rule]]`: the packets that it selects leave by the first usable uplink of
    `via`, or by the last if none is usable. Empty selectors match everything; `cgroups` can't be
    combined with others."""

    via: tuple[str, ...]
    to: tuple[str, ...] = ()  # prefixes
    transport: Transport | None = None  # None: any protocol
    ports: tuple[tuple[int, int], ...] = ()  # destination ports, with a transport
    users: tuple[int, ...] = ()  # uids of the host's own sockets
    cgroups: tuple[str, ...] = ()  # paths below the root of the cgroup v2 hierarchy: "/a/b"


@dataclass(frozen=True, slots=True)
class OutgoingConfig:
    """The `[outgoing]` of the config."""

    mode: Literal["failover", "balance"] = "failover"
    sticky: bool = False  # balance: the same uplink for each destination address
    udp: bool = False  # balance UDP flows as well
    masquerade: tuple[str, ...] = ()  # interfaces of LANs that go out with an uplink's address
    rules: tuple[OutgoingRule, ...] = ()


@dataclass(frozen=True, slots=True)
class MptcpConfig:
    """The `[mptcp]` of the config."""

    announce: bool = False  # the uplinks' addresses, to the peers of MPTCP connections
    outgoing: bool = False  # the host's own MPTCP connections use all uplinks

    @property
    def used(self) -> bool:
        return self.announce or self.outgoing


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The `[web]` of the config: page, API and metrics, and who may use them."""

    listen: str = "127.0.0.1:8053"  # or "[::1]:8053", or the path of a unix socket
    hosts: tuple[str, ...] = ()  # names by which it may be asked, besides localhost and its address
    token_file: str = ""  # whoever reads must know the token in it; "": everybody may
    control_token_file: str = ""  # whoever changes an uplink's state must; "": nobody may

    @property
    def socket(self) -> str:
        """The path of the unix socket; "": it listens on `address`."""
        return self.listen if self.listen.startswith("/") else ""

    @property
    def address(self) -> tuple[str, int]:
        """The IP address and the port, unless there is a `socket`."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class HistoryConfig:
    """The `[history]` of the config: what the monitor writes to files."""

    keep_s: int = 400 * 86400  # 0: no history
    textfile: str = ""  # the metrics, for node_exporter


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """One `[[notify]]` of the config: who is told of which events. One of `mail`, `webhook`, `ntfy`
    and `apprise` says by what, or a file with it."""

    name: str
    mail: str = ""  # an address
    webhook: str = ""  # a URL
    webhook_file: str = ""
    secret_file: str = ""  # signs what is sent to the webhook
    ntfy: str = ""  # a topic's URL
    ntfy_file: str = ""
    apprise: str = ""  # a config file of apprise
    smtp: str = "smtp://localhost"
    password_file: str = ""  # of the user in `smtp`
    sender: str = ""  # "": ifdefault@ and the host's name
    severity: Severity = "warning"  # events of this severity and above
    events: tuple[str, ...] = ()  # kinds; (): all
    uplinks: tuple[str, ...] = ()  # (): all, and events that concern none
    group_s: int = 10  # what follows an event within this time is sent together
    quiet: tuple[int, int] | None = None  # minutes after midnight, local time: from, until


@dataclass(frozen=True, slots=True)
class Config:
    uplinks: tuple[UplinkConfig, ...]
    host: HostConfig = HostConfig()
    health: HealthConfig = HealthConfig()
    daemon: DaemonConfig = DaemonConfig()
    hooks: HookConfig = HookConfig()
    dns: DnsConfig = DnsConfig()
    forwards: tuple[ForwardConfig, ...] = ()
    outgoing: OutgoingConfig = OutgoingConfig()
    mptcp: MptcpConfig = MptcpConfig()
    web: WebConfig = WebConfig()
    history: HistoryConfig = HistoryConfig()
    notify: tuple[NotifyConfig, ...] = ()

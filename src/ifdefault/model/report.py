"""What the engine reports: its status (DaemonStatus), what happened (Event), and how much of it
(CounterReport).

Rules: as in `model`. `ipc.codec` encodes them for the control sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ifdefault.model.config import Family, Severity
from ifdefault.model.dns import Policy
from ifdefault.model.health import Decision, Forced, Health, LineLoad, PathState, ServerState
from ifdefault.model.usage import Usage

_NOTHING = Decision()
# Upper bounds of the histograms; what is longer is counted beyond the last one.
RTT_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DECIDE_BUCKETS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
PublisherKind = Literal["server", "update", "provider", "exec"]
PublisherState = Literal["current", "pending", "failing"]


@dataclass(frozen=True, slots=True)
class Named:
    """A name as it is published since `since_s`. `addresses`: (uplink, address)."""

    name: str
    policy: Policy
    ttl: int
    addresses: tuple[tuple[str, str], ...]
    since_s: float


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """One server or program that a name is published by, and whether it is up to date. `detail`:
    what is being done, or the server's error; `seen`: addresses as read back from it."""

    kind: PublisherKind
    where: str  # a server's address, a provider or a program
    zone: str
    name: str  # "": the whole zone
    state: PublisherState
    since_s: float
    detail: str = ""
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsStatus:
    """All names, and what they are published by. `queries`: answered by the embedded server since
    the engine started: the uplink that they came in on, the response code, how many."""

    names: tuple[Named, ...] = ()
    publishers: tuple[PublisherStatus, ...] = ()
    problems: tuple[str, ...] = ()
    queries: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, order=True, slots=True)
class CheckedServer:
    """A server of a forwarded service, with the result of its checks."""

    forward: str  # what the service listens on: "tcp:443, udp:443"
    address: str
    port: int
    state: ServerState
    since_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Draining:
    """An uplink that the operator drains, until it is forced down, if that is limited.
    `connections`: those that are left, None if they aren't counted yet; `oldest_s`: how old the
    oldest of them is at least."""

    uplink: str
    until_s: float | None = None
    connections: int | None = None
    oldest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Grace:
    """Until when an uplink's outgoing connections may go on, as a better one is usable again."""

    uplink: str
    family: Family
    until_s: float


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The state of all uplinks, and what the engine decided. Times are monotonic seconds."""

    pid: int
    up_s: float  # how long the engine has been running
    now_s: float  # when this status was made
    config: str  # the file
    health: tuple[Health, ...] = ()
    decision: Decision = _NOTHING
    forced: dict[str, Forced] = field(default_factory=dict)  # by the operator; never "auto"
    drains: tuple[Draining, ...] = ()
    graces: tuple[Grace, ...] = ()
    held: str = ""  # why the kernel is not changed now, or that an apply is unconfirmed
    undone_in_s: float | None = None  # an apply that waits for confirmation
    conflicts: tuple[str, ...] = ()  # what other programs keep undoing
    astray: tuple[str, ...] = ()  # packets that don't go where they are meant to go
    problems: tuple[str, ...] = ()  # names that don't resolve, a frontend that was restarted …
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)  # bit/s in, out
    # by uplink: what is sent from one of these leaves by that uplink
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    usage: tuple[Usage, ...] = ()  # of uplinks that have a budget or are metered
    dns: DnsStatus = DnsStatus()
    servers: tuple[CheckedServer, ...] = ()
    lines: tuple[LineLoad, ...] = ()  # of uplinks that have a capacity
    config_errors: tuple[str, ...] = ()  # why the last config that worked is in use
    unsaved: tuple[str, ...] = ()  # state files that can't be written
    program: str = ""  # the folder of the engine's program; "" before 0.3.0, as its version
    program_version: str = ""

    def is_down_by_budget(self, uplink: str) -> bool:
        """Whether it is down since its budget is used up."""
        down = {each.uplink for each in self.usage if each.used_up and each.on_budget == "down"}
        return uplink in down - self.forced.keys()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `at` is wall-clock time, for display only. `serial` is greater than
    that of each event before, over restarts of the engine too; it leaps where some may be lost."""

    at: float  # seconds since the epoch
    kind: str  # one of model.config.EVENT_KINDS
    uplink: str  # "" if it concerns none
    text: str
    severity: Severity = "info"
    serial: int = 0


# --- counters: each begins at 0 with the engine -------------------------------------------------


@dataclass(frozen=True, slots=True)
class PathCounters:
    """Probes of a path and its transitions. A probe that is answered late counts as answered."""

    uplink: str
    family: Family
    answered: int
    lost: int
    rtt_s: float  # the sum of all
    rtt: tuple[int, ...]  # answers, by RTT_BUCKETS_S
    entered: tuple[tuple[PathState, int], ...]  # transitions, by the state entered
    decide_s: float  # from the first lost probe to down: the sum
    decide: tuple[int, ...]  # by DECIDE_BUCKETS_S


@dataclass(frozen=True, slots=True)
class UplinkCounters:
    """Traffic of an uplink's interface since the link was created, and the established TCP
    connections of this host that use the uplink's addresses; of them, subflows of MPTCP."""

    uplink: str
    bytes_in: int
    bytes_out: int
    connections: int
    subflows: int = 0


@dataclass(frozen=True, slots=True)
class CounterReport:
    started_at: float  # seconds since the epoch: when the counters began
    paths: tuple[PathCounters, ...] = ()
    uplinks: tuple[UplinkCounters, ...] = ()
    queries: tuple[tuple[str, str, int], ...] = ()  # DNS: uplink, response code, how many
    # publisher kind, server or program: how many times published, and failed
    updates: tuple[tuple[PublisherKind, str, int, int], ...] = ()
    repairs: int = 0  # operations that undid what others had changed
    refused: int = 0  # operations that the kernel refused

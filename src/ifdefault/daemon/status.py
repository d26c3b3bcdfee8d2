"""What the engine tells of itself: how it stands (DaemonStatus), and what happened (Event).

Rules: as in `model`. `ipc.codec` makes of it what goes over the control socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ifdefault.model.dns import Policy
from ifdefault.model.health import Decision, Forced, Health, ServerState

_NOTHING = Decision()
PublisherKind = Literal["server", "update", "provider", "exec"]
PublisherState = Literal["current", "pending", "failing"]


@dataclass(frozen=True, slots=True)
class Named:
    """What the DNS is to say of a name, since when. `addresses`: (uplink, address)."""

    name: str
    policy: Policy
    ttl: int
    addresses: tuple[tuple[str, str], ...]
    since_s: float


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """One place where names are published, and whether it says what it is to say. `detail` is
    what is being done, or the server's own words; `seen`: addresses as read back."""

    kind: PublisherKind
    where: str  # address of a server, a provider, a program
    zone: str
    name: str  # "" where it is about the whole zone
    state: PublisherState
    since_s: float
    detail: str = ""
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsStatus:
    """All names, and all places where they are published. `queries`: answered by the embedded
    server since the engine started, by the uplink that they came in by."""

    names: tuple[Named, ...] = ()
    publishers: tuple[PublisherStatus, ...] = ()
    problems: tuple[str, ...] = ()
    queries: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, order=True, slots=True)
class CheckedServer:
    """A content server of a forwarded service, as its check judges it."""

    forward: str  # what the service listens on: "tcp:443, udp:443"
    address: str
    port: int
    state: ServerState
    since_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """How all uplinks fare, and what the engine makes of it. Times are monotonic seconds."""

    pid: int
    up_s: float  # for how long it has run
    now_s: float  # what its times are to be compared with
    config: str  # the file
    health: tuple[Health, ...] = ()
    decision: Decision = _NOTHING
    forced: dict[str, Forced] = field(default_factory=dict)  # by the operator; none is "auto"
    held: str = ""  # why nothing is changed now
    conflicts: tuple[str, ...] = ()  # what others keep changing
    problems: tuple[str, ...] = ()  # names that don't resolve, a frontend that was restarted …
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)  # bit/s in, out
    dns: DnsStatus = DnsStatus()
    servers: tuple[CheckedServer, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `at` is wall-clock time, for people alone."""

    at: float  # seconds since the epoch
    kind: str  # path default uplink repair reload hook frontend …
    uplink: str  # "" where it is about none
    text: str

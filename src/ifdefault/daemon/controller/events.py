"""Events: everything that the controller reacts to, from kernel, frontend, operator and engine.

Rules: frozen values. The outcome of an effect, a failure too, is an event that the effect's
docstring names. Times are seconds of the monotonic clock. Measured durations that decisions depend
on are fields of the event.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.health.states import Memory
from ifdefault.model.config import Config, Family
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.errors import Problem
from ifdefault.model.health import Forced, LinkCounter, TcpStats, Verdict
from ifdefault.model.host import Observation
from ifdefault.model.kernel_events import KernelChange


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon started; with what an earlier one saved. `drains`: how long each drain with a
    timeout goes on."""

    config: Config
    forced: tuple[tuple[str, Forced], ...] = ()
    memories: tuple[tuple[str, Family, Memory], ...] = ()
    candidates: tuple[CandidateAddresses, ...] = ()
    public: tuple[PublicAddressFound, ...] = ()
    drains: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Woke:
    """`wake_s` was reached."""


# --- the kernel -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observed:
    """The answer to Look: the host as it is now."""

    observation: Observation
    took_s: float


@dataclass(frozen=True, slots=True)
class LookFailed:
    """The host couldn't be read, or a Converge not be started. `locked`: another ifdefault holds
    the lock."""

    problems: tuple[Problem, ...]
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """Converge was performed, except for what the kernel refused. The observation was made
    afterwards."""

    observation: Observation
    took_s: float
    refused: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """All operations of Commit were performed and verified."""

    observation: Observation
    took_s: float


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """Commit failed and was undone. `problems` say why, and whether undoing failed too."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class KernelChanged:
    """Notifications from the kernel, without those of our own changes."""

    events: tuple[KernelChange, ...]


@dataclass(frozen=True, slots=True)
class SilentlyChanged:
    """Something changed that the kernel sends no notification of: a sysctl or a UDP server; with
    `groups`, a control group that has rules was created or removed."""

    groups: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionsEnded:
    """The outcome of EndConnections."""

    uplink: str
    family: Family
    sockets: int = 0
    flows: int = 0
    took_s: float = 0.0
    error: str = ""


# --- the frontend -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrontendStarted:
    """A new frontend is running. It has no sockets, names or zones yet."""


@dataclass(frozen=True, slots=True)
class FrontendEnded:
    """The frontend ended; whatever it was doing is lost."""


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """The outcome of one SendProbe; `path` is SERVER_CHECKS for a server's check."""

    path: int
    seq: int
    verdict: Verdict
    rtt_us: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SocketFailed:
    """OpenProbeSocket failed: the address isn't there yet, or no longer."""

    path: int


@dataclass(frozen=True, slots=True)
class NameResolved:
    """The addresses of a name of ResolveNames, or why there are none."""

    host: str
    addresses: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class TrafficSeen:
    """Statistics of the host's own TCP connections, by local address, since the last look."""

    stats: tuple[tuple[str, TcpStats], ...]


@dataclass(frozen=True, slots=True)
class TrafficCounted:
    """The bytes that the uplinks' interfaces have carried so far; sent about once a second if the
    config has a budget to obey, hours or capacities. `wall_s`: seconds since the epoch, by a clock
    that may have been set meanwhile; `local_s`: the same, shifted by the offset of local time."""

    wall_s: float
    local_s: float
    counters: tuple[LinkCounter, ...] = ()


@dataclass(frozen=True, slots=True)
class PublicAddressFound:
    """The public address of an uplink in one family was discovered."""

    uplink: str
    family: Family
    address: str


# --- the operator: each request is answered by one Answer with its id ---------------------------


@dataclass(frozen=True, slots=True)
class UplinkRequested:
    """Force an uplink's state, or return to the observed one ("auto"). `timeout_s`: drain it for so
    long, then force it down. `token`: by somebody who isn't root, but knows the control token."""

    id: int
    uplink: str
    state: Forced
    timeout_s: int | None = None
    token: bool = False


@dataclass(frozen=True, slots=True)
class ForcedSaved:
    """The outcome of SaveForced: saved, unless there are problems."""

    id: int
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """Apply this config, completely or not at all; undo it after `confirm_s` unless confirmed."""

    id: int
    config: Config
    confirm_s: int | None = None


@dataclass(frozen=True, slots=True)
class ConfirmRequested:
    id: int


@dataclass(frozen=True, slots=True)
class UndoRequested:
    """Return at once to the config before the one that waits for confirmation."""

    id: int


@dataclass(frozen=True, slots=True)
class DownRequested:
    """Remove everything of ours from the kernel, and pause."""

    id: int


@dataclass(frozen=True, slots=True)
class ExecRequested:
    """Connections that process `pid` of user `uid` opens from now on shall use an uplink."""

    id: int
    pid: int
    uid: int
    uplink: str


@dataclass(frozen=True, slots=True)
class GroupEntered:
    """The outcome of EnterGroup: the process was moved from control group `was` to `path`."""

    id: int
    path: str = ""
    was: str = ""
    problems: tuple[Problem, ...] = ()


Request = (
    UplinkRequested
    | ReloadRequested
    | ConfirmRequested
    | UndoRequested
    | DownRequested
    | ExecRequested
)
Event = (
    Started
    | Woke
    | Observed
    | LookFailed
    | Applied
    | Committed
    | CommitFailed
    | KernelChanged
    | SilentlyChanged
    | ConnectionsEnded
    | FrontendStarted
    | FrontendEnded
    | ProbeOutcome
    | SocketFailed
    | NameResolved
    | TrafficSeen
    | TrafficCounted
    | PublicAddressFound
    | ForcedSaved
    | GroupEntered
    | Request
)

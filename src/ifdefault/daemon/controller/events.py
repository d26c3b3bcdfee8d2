"""What the controller is told: by the kernel, the frontend, the operator, and by the engine.

Rules: frozen values. Whatever an effect asks for is answered by an event, a failure too, named at
the effect. Times are seconds of the monotonic clock; durations that steer come inside the event.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifdefault.health.states import Memory
from ifdefault.model.config import Config, Family
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.errors import Problem
from ifdefault.model.health import Forced, TcpStats, Verdict
from ifdefault.model.host import Observation
from ifdefault.model.kernel_events import KernelChange


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon begins, with what is known of an earlier one."""

    config: Config
    forced: tuple[tuple[str, Forced], ...] = ()
    memories: tuple[tuple[str, Family, Memory], ...] = ()
    candidates: tuple[CandidateAddresses, ...] = ()
    public: tuple[PublicAddressFound, ...] = ()


@dataclass(frozen=True, slots=True)
class Woke:
    """It is time: `wake_s` has come."""


# --- the kernel -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observed:
    """The host as it is now, in answer to Look."""

    observation: Observation
    took_s: float


@dataclass(frozen=True, slots=True)
class LookFailed:
    """The host couldn't be read, or nothing of Converge begun; `locked`: another ifdefault changes
    it."""

    problems: tuple[Problem, ...]
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """The operations of Converge were performed, but for those that were refused. The observation
    was made after them."""

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
    """None of Commit's operations stand; `problems` tell why, and whether undoing succeeded."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class KernelChanged:
    """What the kernel's notifications tell, our own changes left out."""

    events: tuple[KernelChange, ...]


@dataclass(frozen=True, slots=True)
class SilentlyChanged:
    """Something changed of which the kernel sends no word: a sysctl, a UDP server (`groups`
    False); or a control group that has rules came or went, which is nobody's interference."""

    groups: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionsEnded:
    """What became of EndConnections."""

    uplink: str
    family: Family
    sockets: int = 0
    flows: int = 0
    took_s: float = 0.0
    error: str = ""


# --- the frontend -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrontendStarted:
    """A new frontend is there, which knows nothing."""


@dataclass(frozen=True, slots=True)
class FrontendEnded:
    """It is gone, with all that it was to do."""


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """The fate of one SendProbe; the path is SERVER_CHECKS for a server's check."""

    path: int
    seq: int
    verdict: Verdict
    rtt_us: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SocketFailed:
    """OpenProbeSocket couldn't open one: the address isn't there yet, or is gone again."""

    path: int


@dataclass(frozen=True, slots=True)
class NameResolved:
    """Addresses of one of ResolveNames' names; else why there are none."""

    host: str
    addresses: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class TrafficSeen:
    """The host's own TCP connections, by local address; `since_s` is when they were looked at
    before."""

    since_s: float
    stats: tuple[tuple[str, TcpStats], ...]


@dataclass(frozen=True, slots=True)
class PublicAddressFound:
    """The Internet sees an uplink's address as this one."""

    uplink: str
    family: Family
    address: str


# --- the operator: each request is answered by one Answer with its id ---------------------------


@dataclass(frozen=True, slots=True)
class UplinkRequested:
    """Force an uplink's state, or leave it to what is observed ("auto")."""

    id: int
    uplink: str
    state: Forced


@dataclass(frozen=True, slots=True)
class ForcedSaved:
    """What became of SaveForced: it is on disk, unless there are problems."""

    id: int
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """Take in this config, whole or not at all; undo it after `confirm_s` unless confirmed. Id 0
    is a signal's, whom nobody answers."""

    id: int
    config: Config
    confirm_s: int | None = None


@dataclass(frozen=True, slots=True)
class ConfirmRequested:
    id: int


@dataclass(frozen=True, slots=True)
class DownRequested:
    """Take all of ours out of the kernel, and rest."""

    id: int


@dataclass(frozen=True, slots=True)
class ExecRequested:
    """What process `pid` of user `uid` opens from now on is to leave by an uplink."""

    id: int
    pid: int
    uid: int
    uplink: str


@dataclass(frozen=True, slots=True)
class GroupEntered:
    """What became of EnterGroup: the process is in the control group `path`, and was in `was`."""

    id: int
    path: str = ""
    was: str = ""
    problems: tuple[Problem, ...] = ()


Request = UplinkRequested | ReloadRequested | ConfirmRequested | DownRequested | ExecRequested
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
    | PublicAddressFound
    | ForcedSaved
    | GroupEntered
    | Request
)

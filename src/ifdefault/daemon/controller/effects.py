"""Effects: what the controller wants done. The engine performs them one by one, in this order.

A turn yields, as needed (Log and RunHook next to the step that they report):
  1. Save, when a path changed its state, before anything else: after a kill the next engine knows
     why things were done;
  2. Look, to read the kernel; what follows waits for its answer, in the same turn;
  3. Watch, OpenProbeSocket, CloseProbeSocket: the current uplinks, before a decision about them;
  4. Publish, as early as possible, since resolvers need the longest to react; in any case before
     connections end, or a client that reconnects at once is sent to the dead address again;
  5. Commit or Converge: new connections use another uplink;
  6. MoveTunnels, EndConnections and ReturnConnections, only after that;
  7. SendProbe, and Answer to the operator's request.

Rules: frozen values. The docstring of an effect names the event that answers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.health.states import Memory
from ifdefault.model.config import Config, Family, ProbeKind, Severity
from ifdefault.model.dns import CandidateAddresses, Published
from ifdefault.model.errors import Problem
from ifdefault.model.flow import Question
from ifdefault.model.health import Forced, PathState, Way
from ifdefault.model.kernel import Uplink
from ifdefault.model.mptcp import MptcpState
from ifdefault.model.returning import Returning
from ifdefault.model.usage import SavedUsage
from ifdefault.plan.prepare import Prepared

SERVER_CHECKS = 1 << 20  # as a probe's `path`: it checks a server (path numbers are far smaller)


# --- the host ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """Read the host: Observed or LookFailed. `thorough`: also read what is needed to find
    conflicts. `wait`: for the lock, while another ifdefault changes the host. `questions`: what to
    ask the kernel for the self-check. `strays`: look for routes of ours in all tables."""

    config: Config
    thorough: bool = False
    wait: bool = False
    questions: tuple[Question, ...] = ()
    strays: bool = False


@dataclass(frozen=True, slots=True)
class Converge:
    """Perform the planned operations, skipping those that the kernel refuses: Applied, or
    LookFailed if it couldn't begin. For failover and repair, where one refusal mustn't prevent the
    rest."""

    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Commit:
    """Perform all planned operations, or none: Committed or CommitFailed. For requests of the
    operator, and at the start."""

    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Watch:
    """Monitor this from now on. SilentlyChanged reports a difference in what the kernel sends no
    notification of: sysctls, UDP servers, control groups,
    MPTCP's endpoints and limits. All are empty while held."""

    interfaces: tuple[str, ...] = ()  # report changes of their neighbours
    tables: tuple[int, ...] = ()  # report changes of their routes
    sysctls: tuple[tuple[str, str], ...] = ()  # the desired values
    udp_servers: tuple[tuple[Family, int], ...] | None = None  # on the wildcard address; None: any
    groups: tuple[tuple[str, int], ...] = ()  # control groups that have rules, with id; 0: none yet
    runs: tuple[str, ...] = ()  # of these, our own, which are removed when they are empty
    mptcp: MptcpState | None = None  # without implicit endpoints; None: nothing is announced
    on_link: tuple[str, ...] = ()  # prefixes whose TCP peers are no evidence for an uplink
    ended: bool = False  # TCP connections that have ended are evidence, too, as a path isn't up


@dataclass(frozen=True, slots=True)
class EndConnections:
    """End the connections that hang on a dead uplink: ConnectionsEnded. See `stale_connections`."""

    uplink: str
    family: Family
    addresses: tuple[str, ...]
    marks: tuple[int, ...]
    mask: int
    spared: tuple[str, ...]  # prefixes that are not reached through an uplink
    others: tuple[str, ...]  # addresses of the other uplinks, best uplink first


@dataclass(frozen=True, slots=True)
class ReturnConnections:
    """End the connections of an uplink that would use `better` ones if they were opened now:
    ConnectionsEnded. See `returning_connections`."""

    uplink: str
    family: Family
    better: tuple[str, ...]
    returning: Returning


@dataclass(frozen=True, slots=True)
class MoveTunnels:
    """Have tunnels of WireGuard reach their peers as the rules have it now. `uplinks`: interface
    and name, best uplink first; `alone`: families in which all other uplinks are down."""

    uplinks: tuple[tuple[str, str], ...]
    alone: tuple[Family, ...]


# --- probes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbeSource:
    """Where a path's probes are sent from."""

    address: str
    dev: str
    index: int  # of the interface, which may be replaced by another of the same name
    mark: int
    gateway: str

    @property
    def family(self) -> Family:
        return 6 if ":" in self.address else 4


@dataclass(frozen=True, slots=True)
class OpenProbeSocket:
    """Open a path's ICMP socket and pass it to the frontend; SocketFailed if that fails."""

    path: int
    source: ProbeSource


@dataclass(frozen=True, slots=True)
class CloseProbeSocket:
    path: int


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send one probe: ProbeOutcome. Without a source it is routed like any program's packets."""

    path: int
    seq: int
    kind: ProbeKind
    address: str
    port: int
    host: str
    query: str
    statuses: tuple[int, ...]
    timeout_ms: int
    source: ProbeSource | None


@dataclass(frozen=True, slots=True)
class VerifyRouter:
    """Have the kernel resolve a silent gateway anew: KernelChanged. The kernel by itself would
    trust it for up to a minute."""

    dev: str
    gateway: str


@dataclass(frozen=True, slots=True)
class ResolveNames:
    """Resolve these names now and again from time to time: NameResolved."""

    hosts: tuple[str, ...]


# --- DNS, hooks, log --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish these names. `ways`: the paths over which DNS servers may be reached; public
    addresses are discovered over them as well (PublicAddressFound)."""

    config: Config
    uplinks: tuple[Uplink, ...]
    candidates: tuple[CandidateAddresses, ...]
    published: tuple[Published, ...]
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run the operator's hook for an event, if one is configured, as soon as possible."""

    event: PathState | Literal["primary"]
    uplink: str
    family: Family
    was: str
    state: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """Write to the log and to `ifdefault events`."""

    kind: str
    text: str
    uplink: str = ""
    severity: Severity = "info"


@dataclass(frozen=True, slots=True)
class Save:
    """Save what the next engine needs to continue: written and renamed, without fsync. `candidates`
    preserve the last addresses of a name whose uplinks aren't ready at the start; `returned`: as in
    State; `usage`: None if nothing is counted."""

    memories: tuple[tuple[str, Family, Memory], ...]
    candidates: tuple[CandidateAddresses, ...] = ()
    returned: tuple[tuple[str, Family, tuple[str, ...]], ...] = ()
    usage: SavedUsage | None = None


# --- the operator -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveForced:
    """Save an uplink's forced state to disk, and when its drain ends: ForcedSaved."""

    id: int
    uplink: str
    state: Forced
    timeout_s: int | None = None


@dataclass(frozen=True, slots=True)
class EnterGroup:
    """Move a process into the control group of an uplink: GroupEntered."""

    id: int
    pid: int
    uid: int
    uplink: str


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """Move it back, since the kernel couldn't be updated."""

    pid: int
    was: str


@dataclass(frozen=True, slots=True)
class UplinkChanged:
    uplink: str
    was: Forced
    state: Forced


@dataclass(frozen=True, slots=True)
class Changed:
    """A config was applied, or everything removed (`down`). `dns`: as in `model.changes`."""

    prepared: Prepared
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entered:
    path: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a request: a result, or the problems for which it was refused. `config`: they
    are errors in the config."""

    id: int
    result: UplinkChanged | Changed | Entered | None = None
    problems: tuple[Problem, ...] = ()
    config: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """The daemon can't start: exit with these problems."""

    problems: tuple[Problem, ...]


Effect = (
    Look
    | Converge
    | Commit
    | Watch
    | EndConnections
    | ReturnConnections
    | MoveTunnels
    | OpenProbeSocket
    | CloseProbeSocket
    | SendProbe
    | VerifyRouter
    | ResolveNames
    | Publish
    | RunHook
    | Log
    | Save
    | SaveForced
    | EnterGroup
    | LeaveGroup
    | Answer
    | Stop
)

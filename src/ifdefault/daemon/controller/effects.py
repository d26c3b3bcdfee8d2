"""What the controller wants done. The engine performs them in this order, one after another.

A turn yields, of what it has: Log and RunHook beside the step that they tell of, and
  1. Save, when a path changed its state, before anything is done about it: whoever starts after a
     kill knows why it was done;
  2. Look, if the kernel has to be seen. What follows waits for its answer, in the same turn;
  3. Watch, OpenProbeSocket, CloseProbeSocket: what is, is followed before it is decided on;
  4. Publish: others need longest to act upon it. Before connections end, in any case, or a client
     that comes back at once is sent to the dead address again;
  5. Commit or Converge: where new connections go;
  6. EndConnections, when the kernel sends what begins anew elsewhere, and not before;
  7. SendProbe, and Answer to whoever asked.

Rules: frozen values. What is answered by an event names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.health.states import Memory
from ifdefault.model.config import Config, Family, ProbeKind
from ifdefault.model.dns import CandidateAddresses, Published
from ifdefault.model.errors import Problem
from ifdefault.model.health import Forced, PathState, Way
from ifdefault.model.kernel import Uplink
from ifdefault.plan.prepare import Prepared

SERVER_CHECKS = 1 << 20  # a probe's `path` where it checks a server; paths' numbers are far fewer
Level = Literal["info", "warning", "error"]


# --- the host ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """Read the host: Observed or LookFailed. `thorough` also reads what conflicts are told by;
    `wait` while another ifdefault changes it."""

    config: Config
    thorough: bool = False
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Converge:
    """Perform what was planned as far as the kernel takes it: Applied. For failover and repair,
    where nothing may keep the default on a dead uplink."""

    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Commit:
    """Perform what was planned, whole or not at all: Committed or CommitFailed. For what somebody
    asked for and is told of."""

    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Watch:
    """Watch this from now on, and tell when it is otherwise (SilentlyChanged): the kernel sends no
    word of it. Nothing at all while we rest."""

    interfaces: tuple[str, ...] = ()  # whose neighbours are told
    sysctls: tuple[tuple[str, str], ...] = ()  # as they are to be
    udp_servers: tuple[tuple[Family, int], ...] | None = None  # on the wildcard address; None: any
    groups: tuple[tuple[str, int], ...] = ()  # control groups that have rules, by id; 0: none yet
    runs: tuple[str, ...] = ()  # those of them that are ours, and go when nobody is in them
    on_link: tuple[str, ...] = ()  # networks whose peers tell nothing of what is beyond them


@dataclass(frozen=True, slots=True)
class EndConnections:
    """End what hangs on a dead uplink: ConnectionsEnded. See `stale_connections`."""

    uplink: str
    family: Family
    addresses: tuple[str, ...]
    marks: tuple[int, ...]
    mask: int
    spared: tuple[str, ...]  # prefixes that are reached by no uplink
    others: tuple[str, ...]  # addresses of other uplinks, of the first in rank first


# --- probes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbeSource:
    """From where a path's probes leave."""

    address: str
    dev: str
    index: int  # of the interface: one of the same name may be another
    mark: int
    gateway: str

    @property
    def family(self) -> Family:
        return 6 if ":" in self.address else 4


@dataclass(frozen=True, slots=True)
class OpenProbeSocket:
    """Open a path's ICMP socket and hand it to the frontend; SocketFailed if that can't be."""

    path: int
    source: ProbeSource


@dataclass(frozen=True, slots=True)
class CloseProbeSocket:
    path: int


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send one probe: ProbeOutcome. Without a source it leaves as any program's would."""

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
class ResolveNames:
    """See to it that these names' addresses are known, and stay fresh: NameResolved."""

    hosts: tuple[str, ...]


# --- what others are told ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """What the DNS is to say from now on, and by which ways its servers may be told; public
    addresses are discovered by them as well (PublicAddressFound)."""

    config: Config
    uplinks: tuple[Uplink, ...]
    candidates: tuple[CandidateAddresses, ...]
    published: tuple[Published, ...]
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run the operator's program for an event, if there is one, soon."""

    event: PathState | Literal["primary"]
    uplink: str
    family: Family
    was: str
    state: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """Tell the log and `ifdefault events`."""

    kind: str
    text: str
    uplink: str = ""
    level: Level = "info"


@dataclass(frozen=True, slots=True)
class Save:
    """Keep what a later engine needs to go on; it is written and renamed, and nobody waits for
    the disk. `candidates` keep the last address of a name whose uplinks are away at the start."""

    memories: tuple[tuple[str, Family, Memory], ...]
    candidates: tuple[CandidateAddresses, ...] = ()


# --- the operator -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveForced:
    """Put on disk how an uplink is forced: ForcedSaved."""

    id: int
    uplink: str
    state: Forced


@dataclass(frozen=True, slots=True)
class EnterGroup:
    """Move a process into a control group that keeps to an uplink: GroupEntered."""

    id: int
    pid: int
    uid: int
    uplink: str


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """Move it back: the kernel wasn't told."""

    pid: int
    was: str


@dataclass(frozen=True, slots=True)
class UplinkChanged:
    uplink: str
    was: Forced
    state: Forced


@dataclass(frozen=True, slots=True)
class Changed:
    """A config was taken in, or all taken down."""

    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Entered:
    path: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's outcome: a result, or the problems for which it was refused; `config` if they
    are the config's."""

    id: int
    result: UplinkChanged | Changed | Entered | None = None
    problems: tuple[Problem, ...] = ()
    config: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """The daemon can't begin: end, with these problems."""

    problems: tuple[Problem, ...]


Effect = (
    Look
    | Converge
    | Commit
    | Watch
    | EndConnections
    | OpenProbeSocket
    | CloseProbeSocket
    | SendProbe
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

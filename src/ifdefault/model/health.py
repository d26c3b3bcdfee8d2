"""The health of uplinks and servers, and the decision that follows from it.

Rules: as in `model.kernel`. A *path* is an uplink in one family, since one family may fail without
the other. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.model.config import Family, Severity

PathState = Literal["unproven", "up", "degraded", "recovering", "down"]  # as observed
Forced = Literal["auto", "up", "down", "drain"]  # as set by the operator
LONGEST_DRAIN_S = 30 * 86400
Verdict = Literal["answered", "lost", "wrong", "local"]  # the outcome of one probe
StandbyReason = Literal["metered", "budget used up", "outside its hours"]
ServerState = Literal["unproven", "up", "down"]
_SEVERITIES: dict[PathState, Severity] = {"down": "error", "degraded": "warning"}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send one probe now. `seq` is unique among the path's probes that may still be
    answered; `target` is the index in the path's list of targets, or GATEWAY."""

    seq: int
    target: int
    timeout_s: float


GATEWAY = -1


@dataclass(frozen=True, slots=True)
class Transition:
    """A path changed its state. `at_s` is monotonic; `cause` is for display."""

    at_s: float
    uplink: str
    family: Family
    was: PathState
    state: PathState
    cause: str

    @property
    def severity(self) -> Severity:
        return _SEVERITIES.get(self.state, "info")

    def __str__(self) -> str:
        return f"{self.uplink} IPv{self.family}: {self.was} -> {self.state} ({self.cause})"


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """One target of a path. `note` is "" or for display: it never answered, is silent …"""

    probe: str
    answered: int = 0
    lost: int = 0
    rtt_ms: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a path. Times are monotonic seconds."""

    uplink: str
    family: Family
    state: PathState
    since_s: float
    cause: str
    loss_ratio: float = 0.0
    rtt_ms: float = 0.0
    gateway: Literal["answers", "silent", "unknown"] = "unknown"
    bursting: bool = False
    until_s: float = 0.0  # recovering: when it will be up unless it fails again
    targets: tuple[TargetHealth, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """The health of a server behind the host, by its check."""

    address: str
    port: int
    was: ServerState
    state: ServerState
    since_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Which uplinks to use. `order`: all uplinks of a family, best first; the first is primary.
    `usable`: those that may get new flows and be published in the DNS, never empty (fail static).
    Both by family. `servers_down`: (address, port) of servers that failed their check and get no
    new connections. `standby`: uplinks that are usable only where no other is, and why. `weights`:
    present weights that differ from the config's, since a line fills up."""

    order: tuple[tuple[Family, tuple[str, ...]], ...] = ()
    usable: tuple[tuple[Family, tuple[str, ...]], ...] = ()
    servers_down: tuple[tuple[str, int], ...] = ()
    standby: tuple[tuple[str, StandbyReason], ...] = ()
    weights: tuple[tuple[str, int], ...] = ()

    def ranking(self, family: Family) -> tuple[str, ...]:
        return dict(self.order).get(family, ())

    def usable_in(self, family: Family) -> tuple[str, ...]:
        return dict(self.usable).get(family, ())

    def weight(self, uplink: str, configured: int) -> int:
        return dict(self.weights).get(uplink, configured)


@dataclass(frozen=True, slots=True)
class Way:
    """How requests of ours other than probes leave: by an uplink in one family."""

    uplink: str
    family: Family
    address: str
    dev: str
    mark: int


@dataclass(frozen=True, slots=True)
class TcpStats:
    """The TCP sockets of one local address. Outsiders can forge only half-open ones."""

    sockets: int = 0  # established
    # of them: data was acknowledged or received since the last reading; and those that ended since
    progressed: int = 0
    stalled: int = 0  # of them: retransmitting, without a recent ACK
    half_open: int = 0  # SYN_RECV: the client hasn't answered our SYN-ACK yet
    half_open_unanswered: int = 0  # of them: the SYN-ACK was retransmitted
    ack_ms: int = 0  # since the last ACK on one that progressed


@dataclass(frozen=True, slots=True)
class LinkCounter:
    """What the interface of an uplink has carried since it was created, in bytes. `link`: its
    index, as another interface of the same name begins anew."""

    uplink: str
    link: int
    bytes_in: int
    bytes_out: int

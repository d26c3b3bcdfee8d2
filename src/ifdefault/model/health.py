"""More nouns: how the uplinks fare (Health), and what follows from it (Decision).

Rules: as in `model`. A *path* is an uplink in one family, since one may die without the other.
Times are seconds of the monotonic clock, always given, never asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifdefault.model.config import Family

PathState = Literal["unproven", "up", "degraded", "recovering", "down"]  # as observed
Forced = Literal["auto", "up", "down", "drain"]  # as the operator wants it
Verdict = Literal["answered", "lost", "wrong", "local"]  # the fate of one probe
ServerState = Literal["unproven", "up", "down"]


@dataclass(frozen=True, slots=True)
class Ask:
    """Send one probe now. `seq` is unique among those of its path that may still be answered;
    `target` is the probe's index in the path's list of targets, GATEWAY the gateway itself."""

    seq: int
    target: int
    timeout_s: float


GATEWAY = -1


@dataclass(frozen=True, slots=True)
class Transition:
    """A path changed its state. `at_s` is monotonic; `cause` is for people."""

    at_s: float
    uplink: str
    family: Family
    was: PathState
    state: PathState
    cause: str

    def __str__(self) -> str:
        return f"{self.uplink} IPv{self.family}: {self.was} -> {self.state} ({self.cause})"


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """One target of a path. `note` is "" or what is remarkable: it never answered, is silent …"""

    probe: str
    answered: int = 0
    lost: int = 0
    rtt_ms: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """A path, which is an uplink in one family, as it is judged. Times are monotonic seconds."""

    uplink: str
    family: Family
    state: PathState
    since_s: float
    cause: str
    loss_ratio: float = 0.0
    rtt_ms: float = 0.0
    gateway: Literal["answers", "silent", "unknown"] = "unknown"
    bursting: bool = False
    until_s: float = 0.0  # recovering: when it will be up if all goes well
    targets: tuple[TargetHealth, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """A content server behind the host, as its check judges it."""

    address: str
    port: int
    was: ServerState
    state: ServerState
    since_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Which uplinks to use. `order`: all of a family, best first; the first carries the normal
    default. `usable`: those among them that may be given flows and be named in the DNS, never
    none (fail static). Both by family. `gone`: (address, port) of content servers that failed
    their check and are given no new connections."""

    order: tuple[tuple[Family, tuple[str, ...]], ...] = ()
    usable: tuple[tuple[Family, tuple[str, ...]], ...] = ()
    servers_down: tuple[tuple[str, int], ...] = ()

    def ranking(self, family: Family) -> tuple[str, ...]:
        return dict(self.order).get(family, ())

    def usable_in(self, family: Family) -> tuple[str, ...]:
        return dict(self.usable).get(family, ())


@dataclass(frozen=True, slots=True)
class Way:
    """From where something may leave that isn't a probe: an uplink in one family."""

    uplink: str
    family: Family
    address: str
    dev: str
    mark: int


@dataclass(frozen=True, slots=True)
class TcpStats:
    """The sockets of one local address. Outsiders can forge half-open ones, nothing else."""

    sockets: int = 0  # established
    progressed: int = 0  # of them: something was acknowledged or came in since the last look
    stalled: int = 0  # of them: retransmitting, and no ACK for a while
    half_open: int = 0  # SYN_RECV: they asked us, and haven't answered our SYN-ACK yet
    half_open_unanswered: int = 0  # of them: the SYN-ACK was sent again

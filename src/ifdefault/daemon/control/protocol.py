"""What may be asked at the control socket, and what is answered.

Rules: a request is one line of JSON, and so is its reply; `ipc.codec` makes and checks both. The
class of a request says which reply it has, unless that is a Refusal. Nothing is loaded here that
the command line would have to wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, get_args

from ifdefault.daemon.status import DaemonStatus, Event
from ifdefault.ipc import codec
from ifdefault.ipc.fields import name, number
from ifdefault.model.changes import LONGEST_CONFIRM_S, Changes
from ifdefault.model.errors import Problem
from ifdefault.model.health import Forced

if TYPE_CHECKING:
    pass

MOST_EVENTS = 10_000
_Uplink = Annotated[str, name(31)]
_Seconds = Annotated[int, number(1, LONGEST_CONFIRM_S)]

# --- replies ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventList:
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class UplinkChanged:
    uplink: str
    was: Forced
    state: Forced


@dataclass(frozen=True, slots=True)
class Confirmed:
    pass


@dataclass(frozen=True, slots=True)
class Entered:
    """The process is in this cgroup now."""

    cgroup: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """`exit_status` is that of the command which asked."""

    problems: tuple[Problem, ...]
    exit_status: int = 1


# --- requests -----------------------------------------------------------------------------

R = TypeVar("R")


class Asks(Generic[R]):
    """What is answered by an R."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Status(Asks[DaemonStatus]):
    pass


@dataclass(frozen=True, slots=True)
class Events(Asks[EventList]):
    limit: Annotated[int, number(1, MOST_EVENTS)]


@dataclass(frozen=True, slots=True)
class SetUplink(Asks[UplinkChanged]):
    name: _Uplink
    state: Forced


@dataclass(frozen=True, slots=True)
class Reload(Asks[Changes]):
    confirm_s: _Seconds | None = None  # undo after so long, unless confirmed


@dataclass(frozen=True, slots=True)
class Confirm(Asks[Confirmed]):
    pass


@dataclass(frozen=True, slots=True)
class Down(Asks[Changes]):
    pass


@dataclass(frozen=True, slots=True)
class Exec(Asks[Entered]):
    """The peer, and what it starts, is to leave by an uplink from now on."""

    uplink: _Uplink
    netns: Annotated[int, number(1, (1 << 64) - 1)]  # the inode of the namespace that it is in


Request = Status | Events | SetUplink | Reload | Confirm | Down | Exec
Reply = DaemonStatus | EventList | UplinkChanged | Changes | Confirmed | Entered | Refusal


def decode_reply(request: Asks[R], line: bytes) -> R | Refusal:
    """The reply in a line; DecodeError if it is none to this request."""
    (base,) = type(request).__orig_bases__  # type: ignore[attr-defined]
    (expected,) = get_args(base)
    decode: Callable[[Any], R | Refusal] = codec.decoder(expected | Refusal)
    return decode(codec.read(line))

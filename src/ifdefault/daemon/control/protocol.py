"""The requests and replies of the control socket.

Rules: a request is one line of JSON, and so is its reply; `ipc.codec` encodes and validates both.
The class of a request names its reply; a Refusal may come instead. This module imports nothing that
would slow down the command line.
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
    """The process was moved into this control group."""

    cgroup: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """`exit_status`: for the command that sent the request."""

    problems: tuple[Problem, ...]
    exit_status: int = 1


# --- requests -----------------------------------------------------------------------------

R = TypeVar("R")


class Asks(Generic[R]):
    """A request whose reply is an R."""

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
    confirm_s: _Seconds | None = None  # undo after this time, unless confirmed


@dataclass(frozen=True, slots=True)
class Confirm(Asks[Confirmed]):
    pass


@dataclass(frozen=True, slots=True)
class Down(Asks[Changes]):
    pass


@dataclass(frozen=True, slots=True)
class Exec(Asks[Entered]):
    """The peer and its children shall use an uplink from now on."""

    uplink: _Uplink
    netns: Annotated[int, number(1, (1 << 64) - 1)]  # inode of the peer's network namespace


Request = Status | Events | SetUplink | Reload | Confirm | Down | Exec
Reply = DaemonStatus | EventList | UplinkChanged | Changes | Confirmed | Entered | Refusal


def decode_reply(request: Asks[R], line: bytes) -> R | Refusal:
    """The reply in a line; DecodeError if it isn't one to this request."""
    (base,) = type(request).__orig_bases__  # type: ignore[attr-defined]
    (expected,) = get_args(base)
    decode: Callable[[Any], R | Refusal] = codec.decoder(expected | Refusal)
    return decode(codec.read(line))

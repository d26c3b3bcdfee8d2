"""The requests and replies of the control sockets.

Rules: a request is one line of JSON, and so is its reply; `ipc.codec` encodes and validates both.
The class of a request names its reply; a Refusal may come instead. Each reply names the version of
the engine, so that a command of another version can say so when the two don't understand each
other. This module imports nothing that would slow down the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, TypeVar, get_args

from ifdefault import __version__
from ifdefault.ipc import codec
from ifdefault.ipc.fields import name, number, printable_text
from ifdefault.model.changes import LONGEST_CONFIRM_S, Changes
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.health import LONGEST_DRAIN_S, Forced
from ifdefault.model.report import CounterReport, DaemonStatus, Event

MOST_EVENTS = 10_000
LONGEST_WAIT_S = 30
LONGEST_RECORD_S = 600
_SERIALS = 1 << 62
_Uplink = Annotated[str, name(31)]
_Seconds = Annotated[int, number(1, LONGEST_CONFIRM_S)]

# --- replies ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventList:
    """`last`: the greatest serial so far."""

    events: tuple[Event, ...]
    last: int = 0


@dataclass(frozen=True, slots=True)
class UplinkChanged:
    uplink: str
    was: Forced
    state: Forced


@dataclass(frozen=True, slots=True)
class Confirmed:
    pass


@dataclass(frozen=True, slots=True)
class Recorded:
    """The file with the record, for whoever asked for it to take away."""

    path: str


@dataclass(frozen=True, slots=True)
class Entered:
    """The process was moved into this control group."""

    cgroup: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """`exit_status`: for the command that sent the request. `valid`: the request was one."""

    problems: tuple[Problem, ...]
    exit_status: int = 1
    valid: bool = True


# --- requests -----------------------------------------------------------------------------

R = TypeVar("R")


class Asks(Generic[R]):
    """A request whose reply is an R."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Status(Asks[DaemonStatus]):
    pass


@dataclass(frozen=True, slots=True)
class Counters(Asks[CounterReport]):
    pass


@dataclass(frozen=True, slots=True)
class Events(Asks[EventList]):
    """The latest events with a serial greater than `after`. If there are none, wait up to `wait_s`
    for one."""

    limit: Annotated[int, number(1, MOST_EVENTS)]
    after: Annotated[int, number(-1, _SERIALS)] = -1
    wait_s: Annotated[int, number(0, LONGEST_WAIT_S)] = 0


@dataclass(frozen=True, slots=True)
class SetUplink(Asks[UplinkChanged]):
    """`timeout_s`: drain it for this time, then force it down. `token`: permits it to other users
    than root, see `[web] control_token_file`."""

    name: _Uplink
    state: Forced
    timeout_s: Annotated[int, number(1, LONGEST_DRAIN_S)] | None = None
    token: Annotated[str, printable_text] = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Reload(Asks[Changes]):
    confirm_s: _Seconds | None = None  # undo after this time, unless confirmed


@dataclass(frozen=True, slots=True)
class Confirm(Asks[Confirmed]):
    pass


@dataclass(frozen=True, slots=True)
class Undo(Asks[Changes]):
    """Undo at once what waits for confirmation."""


@dataclass(frozen=True, slots=True)
class Down(Asks[Changes]):
    pass


@dataclass(frozen=True, slots=True)
class Exec(Asks[Entered]):
    """The peer and its children shall use an uplink from now on."""

    uplink: _Uplink
    netns: Annotated[int, number(1, (1 << 64) - 1)]  # inode of the peer's network namespace


@dataclass(frozen=True, slots=True)
class Record(Asks[Recorded]):
    """Record for some time what decisions are based on, beginning with the present state."""

    seconds: Annotated[int, number(1, LONGEST_RECORD_S)]


Query = Status | Events | Counters
Command = SetUplink | Reload | Confirm | Undo | Down | Record | Exec
Request = Query | Command
Reply = (
    DaemonStatus
    | EventList
    | CounterReport
    | UplinkChanged
    | Changes
    | Confirmed
    | Recorded
    | Entered
    | Refusal
)


_VERSION = "version"
_encode_request = codec.encoder(Request)
_encode_reply = codec.encoder(Reply)


def encode_request(request: Asks[Any]) -> bytes:
    return codec.write(_encode_request(request)) + b"\n"


def encode_reply(reply: Reply) -> bytes:
    return codec.write({**_encode_reply(reply), _VERSION: __version__}) + b"\n"


class OtherVersion(HostError):
    """The engine is of another version than this command, and they don't understand each other."""


def decode_reply(request: Asks[R], line: bytes) -> R | Refusal:
    """The reply in a line; DecodeError if it isn't one to this request, or OtherVersion."""
    (base,) = type(request).__orig_bases__  # type: ignore[attr-defined]
    (expected,) = get_args(base)
    decode: Callable[[Any], R | Refusal] = codec.decoder(expected | Refusal)
    value = codec.read(line)
    version = value.pop(_VERSION, "") if isinstance(value, dict) else ""
    try:
        reply = decode(value)
    except codec.DecodeError:
        if _is_other(version):
            raise OtherVersion(_versions(version)) from None
        raise
    if not isinstance(reply, Refusal) or not _is_other(version):
        return reply
    if not reply.valid:
        raise OtherVersion(_versions(version))
    return replace(reply, problems=(*reply.problems, _versions(version)))


def _is_other(version: Any) -> bool:
    return isinstance(version, str) and version not in ("", __version__)


def _versions(version: str) -> Problem:
    what = f"the daemon is version {ascii(version[:40])[1:-1]}, this command is {__version__}"
    return Problem("", what, "restart the daemon: systemctl restart ifdefault")

"""What passes between the monitor and a delivery, the process that sends one message.

Rules: the monitor sends a Delivery, as JSON, and the end of the stream. What it gets are Reports, a
line each: Stages, and at last an Outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ifdefault.ipc import codec
from ifdefault.model.config import NotifyConfig
from ifdefault.monitor.notify.message import Message

LIMIT_S = 60.0  # of a delivery
CONNECT_S, REPLY_S = 10.0, 30.0
LONGEST_TEXT = 300  # of what a server says
# "unreachable" and "refused": the message has certainly not arrived; another uplink may help with
# the former only. "unknown": nobody knows.
Kind = Literal["delivered", "refused", "unreachable", "unknown"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """`source`: the local address to send from, "" for what routing chooses. `limit_s`: then it is
    ended."""

    config: NotifyConfig
    message: Message
    source: str = ""
    limit_s: float = LIMIT_S


@dataclass(frozen=True, slots=True)
class Stage:
    """What it does now. `sends`: from now on, the message may arrive."""

    text: str
    sends: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`text`: what the server said, or why it failed."""

    kind: Kind
    text: str


Report = Stage | Outcome
read_delivery: Callable[[object], Delivery] = codec.decoder(Delivery)
read_report: Callable[[object], Report] = codec.decoder(Report)
_encode_report = codec.encoder(Report)


def encode_report(report: Report) -> bytes:
    return codec.write(_encode_report(report)) + b"\n"


# --- in the process ---------------------------------------------------------------------------


class Refused(Exception):
    """The message has certainly not arrived, and wouldn't over another uplink."""


class Unknown(Exception):
    """The message may have arrived."""


Tell = Callable[[Stage], None]

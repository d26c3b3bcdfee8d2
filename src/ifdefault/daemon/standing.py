"""What the engine tells of itself: how it stands (Standing), and what happened (Event).

Rules: as in `model`. `to_json` makes what goes over the control socket, `from_json` is its inverse;
the engine only dumps, so that pydantic is loaded by who asks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ifdefault.vitals import Decision, Forced, Health

T = TypeVar("T")


_NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class Standing:
    """How all uplinks fare, and what the engine makes of it. Times are monotonic seconds."""

    pid: int
    up_s: float  # for how long it has run
    now_s: float  # what its times are to be compared with
    config: str  # the file
    health: tuple[Health, ...] = ()
    decision: Decision = _NOTHING
    forced: dict[str, Forced] = field(default_factory=dict)  # by the operator; none is "auto"
    held: str = ""  # why nothing is changed now
    fights: tuple[str, ...] = ()  # what others keep changing
    problems: tuple[str, ...] = ()  # names that don't resolve, a face that was restarted …
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)  # bit/s in, out

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: Any) -> Standing:
        return _read(cls, told)


@dataclass(frozen=True, order=True, slots=True)
class Event:
    """Something that happened. `at` is wall-clock time, for people alone."""

    at: float  # seconds since the epoch
    kind: str  # path default uplink repair reload hook face …
    uplink: str  # "" where it is about none
    text: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: Any) -> Event:
        return _read(cls, told)


def _read(noun: type[T], told: Any) -> T:
    """A noun as it was before `to_json`; ValueError for anything else."""
    from pydantic import TypeAdapter

    return TypeAdapter(noun).validate_python(told)

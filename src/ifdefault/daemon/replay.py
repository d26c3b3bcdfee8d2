"""Replaying a record (`record`): the same events to a new controller, at the same times.

    file ──> header, lines ──> events ──> Controller ──> Turn

Rules: what a file holds is believed as little as a message of the network: whatever is wrong with
it is told with its line, also what no controller can take in. A last line that was cut off is what
the end of a daemon leaves, and no fault.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.record import FACTS, FORMAT, NOTHING, OBSERVATION, Header
from ifdefault.ipc import codec
from ifdefault.ipc.log import escaped
from ifdefault.model.errors import IfdefaultError, Problem, reason
from ifdefault.model.host import Observation

_MOST_BYTES = 1 << 26  # of a line
_LATEST_S = 4e9  # of a clock: a century and more
_GIVE = "give a file that ifdefault run --record wrote"
_AS_IT_WAS = "replay it as it was recorded"
_event = codec.decoder(e.Event)
Line = tuple[int, bytes]


class RecordError(IfdefaultError):
    """A file that is no record, or that no daemon can have written."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class Turn:
    """`number` 1 is the record's first, at `at_s` after its start."""

    number: int
    at_s: float
    events: tuple[e.Event, ...]
    effects: tuple[f.Effect, ...]


class Replay:
    """`header` is read at once; RecordError if the file can't be. `cut_off` is known at the end."""

    def __init__(self, path: Path) -> None:
        self.cut_off = ""
        self._path, self._lines = path, _lines(path)
        self._last = NOTHING
        self.header = self._header()
        self._now = self.header.now

    def turns(self) -> Iterator[Turn]:
        """Each once; RecordError at the first that is wrong."""
        controller = Controller()
        events_of = codec.decoder(tuple[Annotated[Any, self._event], ...])
        for number, text in self._lines:
            if not text.endswith(b"\n"):
                what = "cut off, as by a daemon that was killed; all before it was replayed"
                self.cut_off = f"{self._path}:{number}: {what}"
                return
            try:
                now, events = self._read(text, events_of)
            except codec.DecodeError as error:
                raise self._error(number, str(error), _AS_IT_WAS) from None
            try:
                effects = controller.receive(events, now)
            except Exception as error:  # whatever it is, it is this line's
                what = f"the controller fails: {type(error).__name__}: {error}".rstrip(": ")
                remedy = f"{_AS_IT_WAS}; if this is how, please report it"
                raise self._error(number, escaped(what), remedy) from error
            yield Turn(number - 1, now - self.header.now, events, effects)

    # --- what is read -----------------------------------------------------------------------

    def _header(self) -> Header:
        number, text = next(self._lines, (0, b""))
        if not text:
            raise RecordError(Problem(str(self._path), "empty", _GIVE))
        try:
            values = codec.read(text)
            if type(values) is dict and values.get("format", FORMAT) != FORMAT:
                told = (
                    f"format {values['format']!r:.20}, written by {values.get('ifdefault')!r:.20}"
                )
                raise self._error(number, told, f"this version reads format {FORMAT}")
            header = codec.from_json(Header, values)
        except codec.DecodeError as error:
            raise self._error(number, f"no header of a record: {error}", _GIVE) from None
        for name, value in (("started_at", header.started_at), ("now", header.now)):
            if not 0 <= value < _LATEST_S:
                raise self._error(number, f"{name}: {value:g} is no time", _AS_IT_WAS)
        return header

    def _read(self, text: bytes, events_of: codec.Decode) -> tuple[float, tuple[e.Event, ...]]:
        values = codec.read(text)
        if type(values) is not dict or values.keys() != {"now", "events"}:
            raise codec.DecodeError('not an object of "now" and "events"')
        try:
            now: float = codec.decoder(float)(values["now"])
        except codec.DecodeError as error:
            raise codec.DecodeError(error.what, "now") from None
        if not isfinite(now) or not self._now <= now < _LATEST_S:
            raise codec.DecodeError(f"{now!r} is no time after {self._now!r}", "now")
        try:
            events: tuple[e.Event, ...] = events_of(values["events"])
        except codec.DecodeError as error:
            raise codec.DecodeError(error.what, f"events{error.path}") from None
        self._now = now
        return now, events

    def _event(self, value: Any) -> e.Event:
        told = value.get(OBSERVATION) if type(value) is dict else None
        if type(told) is not dict:
            event: e.Event = _event(value)
            return event
        event = _event(value | {OBSERVATION: {FACTS: {}} | told})
        assert isinstance(event, e.Observed | e.Applied | e.Committed)  # no other has such a field
        self._last = _completed(event.observation, told, self._last)
        return replace(event, observation=self._last)

    def _error(self, number: int, what: str, remedy: str) -> RecordError:
        return RecordError(Problem(f"{self._path}:{number}", what, remedy))


def _completed(now: Observation, told: dict[str, Any], before: Observation) -> Observation:
    """Of `now` only what was told is known."""
    facts = {name: getattr(now.facts, name) for name in told.get(FACTS, ())}
    rest = {name: getattr(now, name) for name in told}
    return replace(before, **rest | {FACTS: replace(before.facts, **facts)})


def _lines(path: Path) -> Iterator[Line]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordError(Problem(str(path), "is no file", _GIVE))
        with path.open("rb") as file:
            number = 0
            while text := file.readline(_MOST_BYTES):
                number += 1
                if len(text) == _MOST_BYTES:
                    what = f"a line of {_MOST_BYTES} bytes and more"
                    raise RecordError(Problem(f"{path}:{number}", what, _GIVE))
                yield number, text
    except OSError as error:
        raise RecordError(Problem(str(path), f"can't be read: {reason(error)}", _GIVE)) from None

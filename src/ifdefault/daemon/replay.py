"""Replays a record (see `record`): the same events to a new controller, at the same times.

    file ──> header, lines ──> events ──> Controller ──> Turn

Rules: a file is validated like a message from the network. An error names its line, also where the
controller itself fails on an event. A truncated last line is not an error: a daemon that was killed
leaves one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from ifdefault import __version__
from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.controller.controller import Controller
from ifdefault.daemon.record import (
    FACTS,
    FORMAT,
    NOTHING,
    OBSERVATION,
    STATE,
    WITH_STATE,
    Header,
)
from ifdefault.daemon.snapshot import Restorer
from ifdefault.ipc import codec
from ifdefault.model.errors import IfdefaultError, Problem, reason
from ifdefault.model.host import Observation
from ifdefault.model.text import escaped

_MOST_BYTES = 1 << 26  # of a line
_LATEST_S = 4e9  # of a clock: more than a century
_GIVE = "give a file written by ifdefault run --record"
_AS_IT_WAS = "replay the unmodified file"
_event = codec.decoder(e.Event)
Line = tuple[int, bytes]


class RecordError(IfdefaultError):
    """The file is not a record, or was modified."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; `number` counts from 1, `at_s` is the time since the start of the record."""

    number: int
    at_s: float
    events: tuple[e.Event, ...]
    effects: tuple[f.Effect, ...]


class Replay:
    """Reads the header at once; RecordError if the file can't be read. `cut_off`: set at the end if
    the last line was truncated."""

    def __init__(self, path: Path) -> None:
        self.cut_off = ""
        self._path, self._lines = path, _lines(path)
        self._last, self._before = NOTHING, 1  # lines before the first turn
        self.header = self._header()
        self._now = self.header.now

    def turns(self) -> Iterator[Turn]:
        """All turns in order; RecordError at the first invalid line."""
        controller = self._controller()
        first = self._before + 1
        events_of = codec.decoder(tuple[Annotated[Any, self._event], ...])
        for number, text in self._lines:
            if not text.endswith(b"\n"):
                what = "truncated, as by a killed daemon; everything before it was replayed"
                self.cut_off = f"{self._path}:{number}: {what}"
                return
            try:
                now, events = self._read(text, events_of)
            except codec.DecodeError as error:
                raise self._error(number, str(error), _AS_IT_WAS) from None
            try:
                effects = controller.receive(events, now)
            except Exception as error:  # any error is reported with its line
                what = f"the controller fails: {type(error).__name__}: {error}".rstrip(": ")
                remedy = f"{_AS_IT_WAS}; if it is unmodified, please report a bug"
                raise self._error(number, escaped(what), remedy) from error
            yield Turn(number - first + 1, now - self.header.now, events, effects)

    # --- decoding -------------------------------------------------------------------------

    def _controller(self) -> Controller:
        """A new one, or the one whose state the record begins with."""
        if self.header.format == FORMAT:
            return Controller()
        if self.header.ifdefault != __version__:
            what = f"begins with the state of ifdefault {escaped(self.header.ifdefault):.20}"
            raise self._error(1, what, f"replay it with that version; this one is {__version__}")
        restorer, number = Restorer(), 1
        while line := next(self._lines, None):
            number, text = line
            if b'"now"' in text[:8] or not text.endswith(b"\n"):
                self._lines = chain([line], self._lines)
                break
            try:
                restorer.add(_nodes(codec.read(text)))
            except codec.DecodeError as error:
                raise self._error(number, str(error), _AS_IT_WAS) from None
            self._before = number
        try:
            controller = restorer.controller()
        except codec.DecodeError as error:
            raise self._error(number, str(error), _AS_IT_WAS) from None
        if controller.state.prepared is not None:
            self._last = controller.state.prepared.observation
        return controller

    def _header(self) -> Header:
        number, text = next(self._lines, (0, b""))
        if not text:
            raise RecordError(Problem(str(self._path), "empty", _GIVE))
        try:
            values = codec.read(text)
            if type(values) is dict and values.get("format", FORMAT) not in (FORMAT, WITH_STATE):
                what = (
                    f"format {values['format']!r:.20}, written by {values.get('ifdefault')!r:.20}"
                )
                remedy = f"this version reads formats {FORMAT} and {WITH_STATE}"
                raise self._error(number, what, remedy)
            header = codec.from_json(Header, values)
        except codec.DecodeError as error:
            raise self._error(number, f"not the header of a record: {error}", _GIVE) from None
        for name, value in (("started_at", header.started_at), ("now", header.now)):
            if not 0 <= value < _LATEST_S:
                raise self._error(number, f"{name}: {value:g} is not a valid time", _AS_IT_WAS)
        return header

    def _read(self, text: bytes, events_of: codec.Decode) -> tuple[float, tuple[e.Event, ...]]:
        values = codec.read(text)
        if type(values) is not dict or values.keys() != {"now", "events"}:
            raise codec.DecodeError('not an object with "now" and "events"')
        try:
            now: float = codec.decoder(float)(values["now"])
        except codec.DecodeError as error:
            raise codec.DecodeError(error.what, "now") from None
        if not isfinite(now) or not self._now <= now < _LATEST_S:
            raise codec.DecodeError(f"{now!r} is not a time after {self._now!r}", "now")
        try:
            events: tuple[e.Event, ...] = events_of(values["events"])
        except codec.DecodeError as error:
            raise codec.DecodeError(error.what, f"events{error.path}") from None
        self._now = now
        return now, events

    def _event(self, value: Any) -> e.Event:
        changes = value.get(OBSERVATION) if type(value) is dict else None
        if type(changes) is not dict:
            event: e.Event = _event(value)
            return event
        event = _event(value | {OBSERVATION: {FACTS: {}} | changes})
        assert isinstance(event, e.Observed | e.Applied | e.Committed)  # no other has such a field
        self._last = _completed(event.observation, changes, self._last)
        return replace(event, observation=self._last)

    def _error(self, number: int, what: str, remedy: str) -> RecordError:
        return RecordError(Problem(f"{self._path}:{number}", what, remedy))


def _nodes(values: Any) -> list[Any]:
    if type(values) is not dict or values.keys() != {STATE} or type(values[STATE]) is not list:
        raise codec.DecodeError('not an object with "state"')
    nodes: list[Any] = values[STATE]
    return nodes


def _completed(now: Observation, changes: dict[str, Any], before: Observation) -> Observation:
    """`before`, with those fields of `now` that are in `changes`."""
    facts = {name: getattr(now.facts, name) for name in changes.get(FACTS, ())}
    rest = {name: getattr(now, name) for name in changes}
    return replace(before, **rest | {FACTS: replace(before.facts, **facts)})


def _lines(path: Path) -> Iterator[Line]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordError(Problem(str(path), "is not a regular file", _GIVE))
        with path.open("rb") as file:
            number = 0
            while text := file.readline(_MOST_BYTES):
                number += 1
                if len(text) == _MOST_BYTES:
                    what = f"a line of {_MOST_BYTES} bytes or more"
                    raise RecordError(Problem(f"{path}:{number}", what, _GIVE))
                yield number, text
    except OSError as error:
        raise RecordError(Problem(str(path), f"can't be read: {reason(error)}", _GIVE)) from None

"""Records the events that the controller receives in a file, to be replayed (see `replay`).

    Header                                           the first line
    {"now": seconds, "events": [event, …]}           a line for each call of `receive`

Rules: JSON lines, with events encoded by `ipc.codec`. An observation contains only what differs
from the one before it in the file. Each line is written in one piece, without fsync, so that a kill
truncates the last line at most. A write error ends the record, never the daemon. The record
contains no secrets: in URLs of the config, what follows "?" or precedes "@" is replaced by
"REDACTED" and a number, the same for the same text, so that the controller still decides the same.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from ifdefault import __version__
from ifdefault.daemon.controller import events as e
from ifdefault.health.states import Memory
from ifdefault.ipc import codec
from ifdefault.model.config import Config, Probe
from ifdefault.model.errors import HostError, Problem, reason
from ifdefault.model.host import Observation
from ifdefault.model.kernel import Facts

FORMAT = 1
NOTHING = Observation(Facts())  # what the first observation of a record differs from
OBSERVATION, FACTS = "observation", "facts"
_SECRET = re.compile(r"(?<=\?)\S+|(?<=://)[^/?#\s]*(?=@)")
_encode = cast(Callable[[e.Event], dict[str, Any]], codec.encoder(e.Event))


@dataclass(frozen=True, slots=True)
class Header:
    """`started_at` is wall-clock time, `now` the monotonic clock's."""

    what: Literal["ifdefault record"]
    format: int
    ifdefault: str
    started_at: float
    now: float


class Recorder:
    """`ended` is called, with the reason, when recording ends because of an error."""

    def __init__(self, file: int, ended: Callable[[str], None]) -> None:
        self._file, self._ended = file, ended
        self._last = NOTHING
        self._redact = Redactor()
        now, at = time.monotonic(), time.time()
        self._put(codec.to_json(Header("ifdefault record", FORMAT, __version__, at, now)))

    def write(self, now: float, events: Sequence[e.Event]) -> None:
        if self._file >= 0:
            self._put({"now": now, "events": [self._values(event) for event in events]})

    def close(self) -> None:
        if self._file >= 0:
            with suppress(OSError):  # too late to matter
                os.close(self._file)
            self._file = -1

    def _values(self, event: e.Event) -> dict[str, Any]:
        match event:
            case e.Observed(observation) | e.Applied(observation) | e.Committed(observation):
                values = _encode(replace(event, observation=NOTHING))
                values[OBSERVATION] = _observed(observation, self._last)
                self._last = observation
                return values
            case e.Started() | e.ReloadRequested():
                return _encode(self._redact.event(event))
        return _encode(event)

    def _put(self, value: Any) -> None:
        line = codec.write(value) + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):  # the disk is probably full; this attempt raises if so
                os.write(self._file, line[written:])
        except OSError as error:
            self.close()
            self._ended(f"the record ends here: {reason(error)}")


def create(path: Path, ended: Callable[[str], None]) -> Recorder:
    """Begin a record in a new file; HostError if it exists or can't be created."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    except FileExistsError:
        raise HostError(
            Problem(str(path), "already exists", "give the name of a new file")
        ) from None
    except OSError as error:
        what = f"can't be created: {reason(error)}"
        raise HostError(Problem(str(path), what, "give the name of a writable file")) from None
    return Recorder(file, ended)


# --- observations: only what differs from the one before --------------------------------------


def _observed(now: Observation, before: Observation) -> dict[str, Any]:
    changes = _changes(now, before, but=FACTS)
    if facts := _changes(now.facts, before.facts):
        changes[FACTS] = facts
    return changes


def _changes(now: Any, before: Any, but: str = "") -> dict[str, Any]:
    return {
        name: encode(value)
        for name, encode in _encoders(cast(Any, type(now))).items()
        if name != but and (value := getattr(now, name)) != getattr(before, name)
    }


@cache
def _encoders(kind: Any) -> dict[str, codec.Encode]:
    hints = get_type_hints(kind)
    return {field.name: codec.encoder(hints[field.name]) for field in fields(kind)}


# --- secrets ------------------------------------------------------------------------------


class Redactor:
    """Removes secrets from a config, and from saved path states that quote one."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def event(self, event: e.Started | e.ReloadRequested) -> e.Started | e.ReloadRequested:
        event = replace(event, config=self.config(event.config))
        if isinstance(event, e.Started):
            memories = tuple((u, fam, self._memory(memory)) for u, fam, memory in event.memories)
            event = replace(event, memories=memories)
        return event

    def config(self, config: Config) -> Config:
        return replace(
            config,
            uplinks=tuple(
                replace(u, probes=u.probes and self._probes(u.probes)) for u in config.uplinks
            ),
            health=replace(config.health, probes=self._probes(config.health.probes)),
            dns=replace(config.dns, discover=tuple(map(self.text, config.dns.discover))),
            forwards=tuple(replace(f, check=self.text(f.check)) for f in config.forwards),
        )

    def text(self, text: str) -> str:
        """Redact a URL, the path of one, or a sentence that quotes one."""
        return _SECRET.sub(self._replacement, text)

    def _memory(self, memory: Memory) -> Memory:
        seen = tuple((self.text(url), rtt_s) for url, rtt_s in memory.seen)
        return replace(memory, cause=self.text(memory.cause), seen=seen)

    def _replacement(self, secret: re.Match[str]) -> str:
        return f"REDACTED{self.numbers.setdefault(secret[0], len(self.numbers) + 1)}"

    def _probes(self, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(replace(probe, path=self.text(probe.path)) for probe in probes)

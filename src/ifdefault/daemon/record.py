"""A record: the events that the controller took in, in a file, to be replayed (`replay`).

    Header                                           the first line
    {"now": seconds, "events": [event, …]}           a line for each time that it took in events

Rules: JSON lines, events as `ipc.codec` has them; an observation holds only what differs from the
one before it in the file, since hosts are large and change little. A line is written at once and
whole, so that an end at any time cuts the last one at most; nobody waits for the disk. A fault ends
the record, never the daemon. No secret gets into it: what the config's URLs have behind their "?"
or before their "@" becomes "REDACTED" with a number, the same for the same text, so that all that
was alike or told apart still is, and the controller decides the same.
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
    """`ended` is told why nothing more is recorded."""

    def __init__(self, file: int, ended: Callable[[str], None]) -> None:
        self._file, self._ended = file, ended
        self._last = NOTHING
        self._redact = Redactor()
        now, at = time.monotonic(), time.time()
        self._put(codec.to_json(Header("ifdefault record", FORMAT, __version__, at, now)))

    def write(self, now: float, events: Sequence[e.Event]) -> None:
        if self._file >= 0:
            self._put({"now": now, "events": [self._told(event) for event in events]})

    def close(self) -> None:
        if self._file >= 0:
            with suppress(OSError):  # what the disk says that late changes nothing
                os.close(self._file)
            self._file = -1

    def _told(self, event: e.Event) -> dict[str, Any]:
        match event:
            case e.Observed(observation) | e.Applied(observation) | e.Committed(observation):
                told = _encode(replace(event, observation=NOTHING))
                told[OBSERVATION] = _observed(observation, self._last)
                self._last = observation
                return told
            case e.Started() | e.ReloadRequested():
                return _encode(self._redact.event(event))
        return _encode(event)

    def _put(self, value: Any) -> None:
        line = codec.write(value) + b"\n"
        try:
            written = os.write(self._file, line)
            if written < len(line):  # the disk is full, or nearly: the next attempt tells
                os.write(self._file, line[written:])
        except OSError as error:
            self.close()
            self._ended(f"the record ends here: {reason(error)}")


def create(path: Path, ended: Callable[[str], None]) -> Recorder:
    """Begin a record in a new file; HostError if there is one, or there can be none."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    except FileExistsError:
        raise HostError(Problem(str(path), "exists already", "name a new file")) from None
    except OSError as error:
        what = f"can't be created: {reason(error)}"
        raise HostError(Problem(str(path), what, "name a file that can be written")) from None
    return Recorder(file, ended)


# --- observations: what differs from the one before ------------------------------------------


def _observed(now: Observation, before: Observation) -> dict[str, Any]:
    told = _changes(now, before, but=FACTS)
    if facts := _changes(now.facts, before.facts):
        told[FACTS] = facts
    return told


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
    """What of a config, and of what is remembered from one, may be shown to others."""

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
        """A URL, the path of one, or a sentence that quotes it."""
        return _SECRET.sub(self._stand_in, text)

    def _memory(self, memory: Memory) -> Memory:
        seen = tuple((self.text(url), rtt_s) for url, rtt_s in memory.seen)
        return replace(memory, cause=self.text(memory.cause), seen=seen)

    def _stand_in(self, found: re.Match[str]) -> str:
        return f"REDACTED{self.numbers.setdefault(found[0], len(self.numbers) + 1)}"

    def _probes(self, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(replace(probe, path=self.text(probe.path)) for probe in probes)

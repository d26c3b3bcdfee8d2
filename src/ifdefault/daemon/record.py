"""Records the events that the controller receives in a file, to be replayed (see `replay`).

    Header                                           the first line
    {"state": [node, …]}                             lines of a record that begins while the daemon
                                                     runs: the controller's state (`snapshot`)
    {"now": seconds, "events": [event, …]}           a line for each call of `receive`

Rules: JSON lines, with events encoded by `ipc.codec`. An observation contains only what differs
from the one before it in the file. Each line is written in one piece, without fsync, so that a kill
truncates the last line at most. A write error ends the record, never the daemon. The record
contains no secrets: in URLs of the config, what follows "?" or precedes "@" is replaced by
"REDACTED" and a number, the same for the same text, so that the controller still decides the same.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from ifdefault import __version__
from ifdefault.daemon.controller import events as e
from ifdefault.daemon.snapshot import Snapshot
from ifdefault.health.states import Memory
from ifdefault.ipc import codec
from ifdefault.model.config import Config, NotifyConfig, Probe
from ifdefault.model.errors import HostError, Problem, reason
from ifdefault.model.host import Observation
from ifdefault.model.kernel import Facts

FORMAT, WITH_STATE = 1, 2  # of a record from the daemon's start on; of one that has its state
NOTHING = Observation(Facts())  # what the first observation of a record differs from
OBSERVATION, FACTS, STATE = "observation", "facts", "state"
_SLICE_S = 0.002  # of a turn's time, to encode the state
_SECRET = re.compile(r"(?<=\?)\S+|(?<=://)[^/?#\s]*(?=@)")
_PATH = re.compile(r"(?<=[^:/]/)\S+")  # of a URL
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
    """`ended` is called, with the reason, when recording ends because of an error. With a snapshot
    `write_state` must follow; until that is done, events wait. `most_bytes`: then the record ends,
    without an error."""

    def __init__(
        self,
        file: int,
        ended: Callable[[str], None],
        snapshot: Snapshot | None = None,
        most_bytes: float = inf,
    ) -> None:
        self._file, self._ended, self._snapshot = file, ended, snapshot
        self._room = most_bytes
        self._last = (snapshot and snapshot.observation) or NOTHING
        self._redact = Redactor()
        self._waiting: list[dict[str, Any]] = []
        number = WITH_STATE if snapshot else FORMAT
        now, at = time.monotonic(), time.time()
        self._put(codec.to_json(Header("ifdefault record", number, __version__, at, now)))

    def write(self, now: float, events: Sequence[e.Event]) -> None:
        if self._file < 0:
            return
        line = {"now": now, "events": [self._values(event) for event in events]}
        if self._snapshot:
            self._waiting.append(line)
        else:
            self._put(line)

    async def write_state(self) -> None:
        """Write what the controller was when recording began, between turns."""
        assert self._snapshot is not None
        nodes: list[Any] = []
        begun_s = time.monotonic()
        for node in self._snapshot.nodes(self._redact):
            nodes.append(node)
            if time.monotonic() > begun_s + _SLICE_S:
                self._put({STATE: nodes})
                nodes = []
                await asyncio.sleep(0)
                begun_s = time.monotonic()
        for line in ({STATE: nodes}, *self._waiting):
            self._put(line)
        self._snapshot, self._waiting = None, []

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
        if self._file < 0:
            return
        line = codec.write(value) + b"\n"
        self._room -= len(line)
        if self._room < 0:
            self.close()
            return
        try:
            written = os.write(self._file, line)
            if written < len(line):  # the disk is probably full; this attempt raises if so
                os.write(self._file, line[written:])
        except OSError as error:
            self.close()
            self._ended(f"the record ends here: {reason(error)}")


def create(
    path: Path,
    ended: Callable[[str], None],
    snapshot: Snapshot | None = None,
    most_bytes: float = inf,
) -> Recorder:
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
    return Recorder(file, ended, snapshot, most_bytes)


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
            notify=tuple(map(self.notify, config.notify)),
        )

    def notify(self, notify: NotifyConfig) -> NotifyConfig:
        """Whoever knows the path of a webhook or a topic may use it."""
        return replace(
            notify,
            webhook=_PATH.sub(self._replacement, self.text(notify.webhook)),
            ntfy=_PATH.sub(self._replacement, self.text(notify.ntfy)),
            smtp=self.text(notify.smtp),
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

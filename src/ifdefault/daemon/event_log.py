"""What happened, for `ifdefault events`, and what must survive a restart of the engine.

Rules: a line each, also to the log, with both states and the cause. What is kept on disk holds for
this boot alone, since its times are monotonic; if it is lost, everything is learned again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path as FilePath

from ifdefault.daemon.controller.effects import Save
from ifdefault.daemon.status import Event
from ifdefault.health.states import Memory
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.store import HEALTH, Store
from ifdefault.ipc import codec
from ifdefault.model.config import Family
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.kernel import Neighbour

KEPT, KEPT_ON_DISK = 500, 100
_BOOT = FilePath("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger("ifdefault")


@dataclass(frozen=True, slots=True)
class _Saved:
    """What is on disk. The boot's id, since the times of paths are monotonic."""

    boot: str = ""
    paths: tuple[tuple[str, Family, Memory], ...] = ()
    routers: tuple[Neighbour, ...] = ()
    candidates: tuple[CandidateAddresses, ...] = ()
    events: tuple[Event, ...] = ()


class EventLog:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._boot = _BOOT.read_text().strip()
        self._events: deque[Event] = deque(maxlen=KEPT)

    def note(self, kind: str, text: str, uplink: str = "", level: int = logging.INFO) -> None:
        """Tell the log, and remember; the wall clock is for people alone."""
        self._events.append(Event(time.time(), kind, uplink, text))
        _log.log(level, "%s", text)

    def recent(self, limit: int) -> tuple[Event, ...]:
        return tuple(self._events)[-limit:] if limit else ()

    def load(self, routers: RoutersSeen) -> Save:
        """What an earlier engine saved; the routers' MACs, and into the event log its events."""
        try:
            saved = codec.from_json(_Saved, self._store.read(HEALTH) or {})
        except (IfdefaultError, codec.DecodeError) as error:
            _log.warning("%s is passed over: %s", self._store.directory / HEALTH, error)
            return Save(())
        self._events.extend(saved.events)
        if saved.boot != self._boot:
            return Save((), saved.candidates)
        routers.known |= {(each.dev, each.address): each for each in saved.routers}
        return Save(saved.paths, saved.candidates)

    def save(self, save: Save, routers: RoutersSeen) -> None:
        saved = _Saved(
            self._boot,
            save.memories,
            tuple(routers.known.values()),
            save.candidates,
            self.recent(KEPT_ON_DISK),
        )
        self._store.write(HEALTH, codec.to_json(saved), durable=False)

"""What happened, for `ifdefault events`, and what must survive a restart of the engine.

Rules: a line each, also to the log, with both states and the cause. What is kept on disk holds for
this boot alone, since its times are monotonic; if it is lost, everything is learned again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Any, get_args

from ifdefault.daemon.status import Event
from ifdefault.health.states import Memory
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.store import HEALTH, Store
from ifdefault.model.config import Family
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.health import PathState
from ifdefault.model.kernel import Neighbour

KEPT, KEPT_ON_DISK = 500, 100
Key = tuple[str, Family]
_BOOT = FilePath("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger("ifdefault")


class EventLog:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._boot = _BOOT.read_text().strip()
        self._events: deque[Event] = deque(maxlen=KEPT)

    def note(self, kind: str, text: str, uplink: str = "", level: int = logging.INFO) -> None:
        """Tell the log, and remember; the wall clock is for people alone."""
        self._events.append(Event(time.time(), kind, uplink, text))
        _log.log(level, "%s", text)

    def recent(self, limit: int) -> list[dict[str, Any]]:
        return [asdict(event) for event in list(self._events)[-limit:]] if limit else []

    def load(self, routers: RoutersSeen) -> dict[Key, Memory]:
        """The paths' memories, the routers' MACs, and into the event log its earlier events."""
        try:
            told = self._store.read(HEALTH) or {}
            self._events.extend(Event(**event) for event in told.get("events", ()))
            if told.get("boot") != self._boot:
                return {}
            seen = (Neighbour(**each) for each in told["routers"])
            routers.known |= {(each.dev, each.address): each for each in seen}
            memories = {(p["uplink"], p["family"]): Memory(**p["memory"]) for p in told["paths"]}
        except (IfdefaultError, AttributeError, KeyError, TypeError, ValueError) as error:
            _log.warning("%s is passed over: %s", self._store.directory / HEALTH, error)
            return {}
        known = get_args(PathState)  # another version may have others
        return {key: memory for key, memory in memories.items() if memory.state in known}

    def save(self, memories: Mapping[Key, Memory], routers: RoutersSeen) -> None:
        paths = [
            {"uplink": name, "family": family, "memory": asdict(memory)}
            for (name, family), memory in memories.items()
        ]
        told = {
            "boot": self._boot,
            "paths": paths,
            "routers": [asdict(neighbour) for neighbour in routers.known.values()],
            "events": [asdict(event) for event in list(self._events)[-KEPT_ON_DISK:]],
        }
        self._store.write(HEALTH, told, durable=False)

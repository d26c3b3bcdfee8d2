"""The events that `ifdefault events` shows, and the state that a restarted engine needs.

Rules: an event is one line, which is also logged, with both states and the cause. One that repeats
itself is counted, so that it doesn't push out the others. Serials never go back: where events may
have been lost, by a crash or with the file, they leap. The saved state of paths is valid for
this boot only, since its times are monotonic; if it is lost, everything is learned again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from math import isfinite

from ifdefault.daemon.controller.effects import Save
from ifdefault.health.states import Memory
from ifdefault.host.routers import RoutersSeen
from ifdefault.host.state_file import StateFile
from ifdefault.host.store import HEALTH, Store
from ifdefault.ipc import fields, log
from ifdefault.kernel.netns import boot_id
from ifdefault.model.config import Family, Severity
from ifdefault.model.dns import CandidateAddresses
from ifdefault.model.kernel import Neighbour
from ifdefault.model.report import Event
from ifdefault.model.text import escaped

KEPT, KEPT_ON_DISK = 500, 100
_UNSAVED = 100_000  # more events than any that were noted and not saved
_log = logging.getLogger("ifdefault")


@dataclass(frozen=True, slots=True)
class _Saved:
    """The content of the file. `boot`: the boot's id, since times of paths are monotonic. `last`:
    the greatest serial so far; `complete`: the engine ended without another event."""

    boot: str = ""
    paths: tuple[tuple[str, Family, Memory], ...] = ()
    routers: tuple[Neighbour, ...] = ()
    candidates: tuple[CandidateAddresses, ...] = ()
    events: tuple[Event, ...] = ()
    last: int = 0
    complete: bool = False
    returned: tuple[tuple[str, Family, tuple[str, ...]], ...] = ()


def _check(saved: _Saved) -> None:
    for _, _, memory in saved.paths:
        rtts = [rtt_s for _, rtt_s in memory.seen]
        if not all(map(isfinite, (memory.since_s, *memory.losses, *memory.falls_s, *rtts))):
            raise ValueError("paths: not a finite number")
    for candidate in saved.candidates:
        for address in candidate.addresses:
            fields.address(address)
    for router in saved.routers:
        fields.address(router.address)
        _check_mac(router.mac)


_check_mac = fields.text(r"([0-9a-f]{2}(:[0-9a-f]{2}){5,19})?")
SAVED: StateFile[_Saved] = StateFile(
    HEALTH,
    _Saved,
    "what was learned of the paths is learned again",
    urgent=False,
    check=_check,
)


def saved_events(store: Store) -> tuple[Event, ...] | None:
    """The latest events of the daemon that ran last, None if none ever ran."""
    saved = store.read(SAVED)
    return None if saved is None else saved.events


class EventLog:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._boot = boot_id()
        self._events: deque[Event] = deque(maxlen=KEPT)
        self.last = _clock()  # the greatest serial so far
        self.noted: Callable[[], None] = lambda: None  # called with each event
        self.ends = False  # no event follows
        self._repeats: log.Repeats[tuple[str, str, str, Severity]] = log.Repeats()

    def note(self, kind: str, text: str, uplink: str = "", severity: Severity = "info") -> None:
        """Log an event, and remember it. Its wall-clock time is only for display."""
        text, now = escaped("; ".join(text.splitlines())), time.monotonic()
        for (kind_, uplink_, text_, severity_), more in self._repeats.over(now):
            self._add(kind_, uplink_, log.repeated(text_, more), severity_)
        if self._repeats.passes((kind, uplink, text, severity), now):
            self._add(kind, uplink, text, severity)
        _log.log(log.LEVELS[severity], "%s", text)

    def _add(self, kind: str, uplink: str, text: str, severity: Severity) -> None:
        self.last += 1
        self._events.append(Event(time.time(), kind, uplink, text, severity, self.last))
        self.noted()

    def recent(self, limit: int, after: int = -1) -> tuple[Event, ...]:
        """The latest events with a serial greater than `after`."""
        events = []
        for event in islice(reversed(self._events), limit):
            if event.serial <= after:
                break
            events.append(event)
        return tuple(reversed(events))

    def load(self, routers: RoutersSeen) -> Save:
        """What an earlier engine saved. Also restores its events, and the MACs into `routers`."""
        saved = self._store.read(SAVED)
        if saved is None:
            return Save(())
        if saved.complete:
            self.last = saved.last
            self._store.write(SAVED, replace(saved, complete=False))
        else:
            self.last = max(self.last, saved.last + _UNSAVED)
        for event in saved.events:
            if event.serial > saved.last or not event.serial:  # noted while no engine ran
                self.last += 1
                event = replace(event, serial=self.last)
            self._events.append(event)
        if saved.boot != self._boot:
            return Save((), saved.candidates)
        routers.known |= {(router.dev, router.address): router for router in saved.routers}
        return Save(saved.paths, saved.candidates, saved.returned)

    def save(self, save: Save, routers: RoutersSeen) -> None:
        saved = _Saved(
            self._boot,
            save.memories,
            tuple(routers.known.values()),
            save.candidates,
            self.recent(KEPT_ON_DISK),
            self.last,
            self.ends,
            save.returned,
        )
        self._store.write(SAVED, saved)

    def note_state(self) -> None:
        """Log what happened to the files of the state directory."""
        for problem in self._store.take_news():
            self.note("state", str(problem), severity="warning" if problem.warning else "error")


def _clock() -> int:
    """A serial that is greater than any of before, if those are lost: there are fewer events than
    milliseconds."""
    return time.time_ns() // 1_000_000

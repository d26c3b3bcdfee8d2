"""The screens of `top`, and what the keys do.

Rules: keys answer at once, whatever the engine does. While no engine runs, what the last one said
stays. The operator confirms each change, and only root may make one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ifdefault.cli.options import Options
from ifdefault.cli.show import dashboard, uplink_page
from ifdefault.cli.show.chart import Row
from ifdefault.cli.show.dashboard import SORTS, View
from ifdefault.cli.show.event_rows import event_row, matches
from ifdefault.cli.show.poll import Outcome, Poller, Reading
from ifdefault.cli.show.samples import Samples
from ifdefault.cli.show.terminal import BOTTOM, PAGE_DOWN, PAGE_UP, TOP, Terminal, size
from ifdefault.ipc.control.client import SOCKET
from ifdefault.ipc.control.protocol import SetUplink
from ifdefault.model.config import SEVERITIES, Severity

if TYPE_CHECKING:
    from ifdefault.model.health import Forced
    from ifdefault.model.report import DaemonStatus, Event

_KEPT_EVENTS = 2000
_NOTICE_S = 5.0  # how long the outcome of a request is shown
REFRESH_S = 1.0  # the clock, and how long ago an engine answered
_UP, _DOWN = {"\x1b[A", "\x1bOA", "k"}, {"\x1b[B", "\x1bOB", "j"}
_ENTER, _BACK = {"\n", "\r"}, {"\x1b", "\x7f", "\b", "\x1b[D", "\x1bOD"}
_FORCE: dict[str, Forced] = {"d": "drain", "u": "up", "D": "down", "a": "auto"}
_ASKED = {
    "drain": "give {} no new connections",
    "up": "use {} whatever its probes say",
    "down": "stop using {}",
    "auto": "let {} follow its probes",
}
_KEYS = (
    ("q", "quit"),
    ("h", "help"),
    ("↑↓", "select"),
    ("Enter", "details"),
    ("e", "events"),
    ("d", "drain"),
    ("u", "up"),
    ("D", "down"),
    ("a", "auto"),
    ("s", "sort"),
    ("space", "pause"),
)
_HELP = """\
ifdefault top: keys

  q            quit; on another screen than the first, Esc goes back
  h, ?         this help
  up, down     select an uplink; j and k do the same
  Enter        the selected uplink: targets, last minutes, decision
  e            all events; / filters them by text, w by severity
  s            sort by: config, state, loss, RTT, traffic
  space        pause, and go on

  as root, for the selected uplink, each after y:
  d            drain: no new connections
  u            up: use it whatever its probes say
  D            down: do not use it
  a            auto: follow its probes

  In a chart, x or a cross marks lost probes.
"""


class Top:
    """What is shown, and what the keys do to it."""

    def __init__(self, options: Options, terminal: Terminal, poller: Poller) -> None:
        self._terminal, self._poller = terminal, poller
        self._control = options.run_dir / SOCKET
        self._status: DaemonStatus | None = None
        self._samples = Samples()
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._problem, self._said_at = "", ""  # why nothing was said, and when something was
        self._page, self._scrolled = "uplinks", 0
        self._selected, self._sort, self._paused = "", 0, False
        self._shown: View | None = None
        self._filter, self._typing, self._severity = "", False, 0
        self._asked: tuple[str, Forced] | None = None  # what waits for y
        self._notice, self._notice_until_s, self._failed = "", 0.0, False
        self._ends = False

    def run(self) -> None:
        while not self._ends:
            self._draw()
            for key in self._terminal.keys(time.monotonic() + REFRESH_S):
                self._press(key)
            self._ends |= self._terminal.gone
            while (said := self._poller.take()) is not None:
                self._hear(said)

    # --- what the engine says -------------------------------------------------------------

    def _hear(self, said: Reading | Outcome) -> None:
        if isinstance(said, Outcome):
            self._note(said.text, failed=said.failed)
            return
        self._problem = said.problem
        self._events += said.events
        if said.status is not None and said.counters is not None:
            self._status = said.status
            self._samples.add(said.status, said.counters)
            self._samples.add_history(said.minutes, said.status.now_s, time.time())
            self._said_at = f"{datetime.now().astimezone():%H:%M:%S}"

    def _note(self, text: str, *, failed: bool = False) -> None:
        self._notice, self._failed = text, failed
        self._notice_until_s = time.monotonic() + _NOTICE_S

    # --- keys -----------------------------------------------------------------------------

    def _press(self, key: str) -> None:
        if self._asked:
            self._answer(key)
        elif self._typing:
            self._type(key)
        elif key in ("q", "Q"):
            self._ends = True
        elif key in _BACK and self._page != "uplinks":
            self._go("uplinks")
        elif key in ("h", "?"):
            self._go("help" if self._page != "help" else "uplinks")
        elif key == "e":
            self._go("events" if self._page != "events" else "uplinks")
        elif key == " ":
            self._pause()
        elif key in _FORCE and self._page in ("uplinks", "uplink"):
            self._ask(_FORCE[key])
        else:
            keys = {"uplinks": self._on_uplinks, "events": self._on_events}
            keys.get(self._page, self._scroll)(key)

    def _on_uplinks(self, key: str) -> None:
        if key == "s":
            self._sort = (self._sort + 1) % len(SORTS)
            self._note(f"sorted by {[*SORTS][self._sort]}")
        elif key in _ENTER and self._selected:
            self._go("uplink")
        elif key in _UP | _DOWN and (view := self._view()):
            names = [*view.uplinks()]
            step = 1 if key in _DOWN else -1
            at = names.index(self._selected) + step if self._selected in names else 0
            self._selected = names[max(0, min(at, len(names) - 1))] if names else ""

    def _on_events(self, key: str) -> None:
        if key == "/":
            self._typing = True
        elif key == "w":
            self._severity = (self._severity + 1) % len(SEVERITIES)
        else:
            self._scroll(key)

    def _scroll(self, key: str) -> None:
        page = max(size()[0] - 2, 1)
        # events are read upwards from the latest one
        sign = -1 if self._page == "events" else 1
        for keys, rows in ((_DOWN, 1), (_UP, -1), (PAGE_DOWN, page), (PAGE_UP, -page)):
            if key in keys:
                self._scrolled = max(0, self._scrolled + sign * rows)
        ends = (BOTTOM, TOP) if self._page == "events" else (TOP, BOTTOM)
        if key in ends[0]:
            self._scrolled = 0
        elif key in ends[1]:
            self._scrolled = _KEPT_EVENTS

    def _type(self, key: str) -> None:
        self._scrolled = 0
        if key in _ENTER:
            self._typing = False
        elif key == "\x1b":
            self._typing, self._filter = False, ""
        elif key in ("\x7f", "\b"):
            self._filter = self._filter[:-1]
        elif key == "\x15":  # Ctrl-U
            self._filter = ""
        elif key.isprintable():
            self._filter += key

    def _go(self, page: str) -> None:
        self._page, self._scrolled = page, 0

    def _pause(self) -> None:
        self._paused = not self._paused
        self._shown = None

    def _ask(self, forced: Forced) -> None:
        if not os.access(self._control, os.W_OK):
            self._note(
                "only root may change an uplink's state: run sudo ifdefault top", failed=True
            )
        elif self._selected:
            self._asked = (self._selected, forced)

    def _answer(self, key: str) -> None:
        assert self._asked is not None
        (name, forced), self._asked = self._asked, None
        if key in ("y", "Y"):
            self._note(f"{name}: {forced} …")
            self._poller.request(SetUplink(name, forced))
        else:
            self._note("nothing changed")

    # --- the picture ----------------------------------------------------------------------

    def _view(self) -> View | None:
        """What there is to see; the same as before while paused."""
        if self._status is None:
            return None
        problem = ""
        if self._problem:
            problem = f"{self._problem}; shown is what it said at {self._said_at}"
        view = View(self._status, self._samples, [*self._events])
        if self._paused:
            self._shown = self._shown or replace(view, samples=deepcopy(self._samples))
            view = self._shown
        view = replace(view, sort=[*SORTS][self._sort], problem=problem)
        self._selected = self._selected or next(iter(view.uplinks()), "")
        return replace(view, selected=self._selected)

    def _draw(self) -> None:
        height, columns = size()
        body = max(height - 1, 1)
        rows = self._rows(body, columns)[:body]
        rows += [Row()] * (body - len(rows))
        shown = [row.painted(columns) for row in rows]
        if height > 1:
            self._terminal.draw(shown, self._last(columns).painted(columns))
        else:
            self._terminal.draw([], shown[0])

    def _rows(self, height: int, columns: int) -> list[Row]:
        if self._page == "help":
            return self._part([Row().add(line) for line in _HELP.splitlines()], height)
        view = self._view()
        if view is None:
            waits = self._problem or "waiting for the daemon's answer"
            return [Row().add(waits, "warn" if self._problem else None)]
        if self._page == "events":
            return self._event_rows(view, height, columns)
        if self._page == "uplink":
            return self._part(uplink_page.rows(view, height, columns), height)
        rows = dashboard.rows(view, height, columns)
        clock = f"{datetime.now().astimezone():%H:%M:%S}"
        if rows and rows[0].width + len(clock) + 2 <= columns:
            rows[0].add(clock, "note", -(columns - rows[0].width))
        return rows

    def _part(self, rows: list[Row], height: int) -> list[Row]:
        """What is scrolled to."""
        self._scrolled = max(0, min(self._scrolled, len(rows) - height))
        return rows[self._scrolled : self._scrolled + height]

    def _event_rows(self, view: View, height: int, columns: int) -> list[Row]:
        severity: Severity = SEVERITIES[self._severity]
        found = [event for event in view.events if matches(event, self._filter, severity)]
        room = max(height - 1, 1)
        self._scrolled = max(0, min(self._scrolled, len(found) - room))
        end = len(found) - self._scrolled
        about = f"{len(found)} of {len(view.events)} events"
        if self._severity:
            about += f", {severity}{' and above' * (severity == 'warning')}"
        if self._filter or self._typing:
            about += f', with "{self._filter}{"_" * self._typing}"'
        return [
            Row().add(about, "head"),
            *(event_row(event, columns) for event in found[max(0, end - room) : end]),
        ]

    def _last(self, columns: int) -> Row:
        """The last row: a question, the outcome of a request, or what keys there are."""
        if self._asked:
            name, forced = self._asked
            return Row().add(f"{_ASKED[forced].format(name)}? y/n ", "mark")
        if time.monotonic() < self._notice_until_s:
            return Row().add(self._notice, "bad" if self._failed else "head")
        row = Row()
        if self._paused:
            row.add("paused", "mark").add("  ")
        for key, what in self._keys():
            room = columns - row.width - len(f"{key} {what}")
            if room < 0:
                break
            row.add(key, "head").add(f" {what}  ")
        return row

    def _keys(self) -> Sequence[tuple[str, str]]:
        if self._typing:
            return (("Enter", "done"), ("Esc", "no filter"))
        if self._page == "events":
            return (("q", "quit"), ("Esc", "back"), ("/", "filter"), ("w", "severity"), ("↑↓", ""))
        if self._page != "uplinks":
            return (("q", "quit"), ("Esc", "back"), *_KEYS[5:9], ("space", "pause"))
        may = os.access(self._control, os.W_OK)
        return [k for k in _KEYS if may or k[0] not in _FORCE]

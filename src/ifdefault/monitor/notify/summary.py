"""What happened, in a line for each uplink, from the events that a notifier has to send.

Rules: pure. An outage that is over is one line with its times, even if neither its beginning nor
its end could be sent before. The worst comes first. Times are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ifdefault.model.config import SEVERITIES, Severity
from ifdefault.model.report_text import age
from ifdefault.monitor.history.transition import transition_of
from ifdefault.monitor.notify.schedule import FAULTS, Item

# as the controller writes it (daemon.controller.decision)
_PRIMARY = re.compile(r"primary IPv([46]): (\S+) -> (\S+)")
LATE_S = 60.0  # what is older is said with its time
Families = Mapping[str, Iterable[int]]  # those of each uplink, as far as they are known
Line = tuple[Severity, str]
Moves = Sequence[tuple[str, str]]  # of the primary uplink: from, to


@dataclass(slots=True)
class _Path:
    """What happened to an uplink in one family. `faults`: begin, end (None: it isn't over)."""

    state: str = ""
    cause: str = ""
    worst: str = ""
    is_known: bool = False  # the beginning of the first fault had been sent before
    faults: list[tuple[float, float | None]] = field(default_factory=list)
    severity: Severity = "info"

    def add(self, item: Item, state: str, cause: str) -> None:
        at = item.event.at
        if state in FAULTS:
            if not self.faults or self.faults[-1][1] is not None:
                self.faults.append((at, None))
            if state == "down" or not self.worst:
                self.worst = state
            self.cause = cause
        elif state == "up":
            if self.faults and self.faults[-1][1] is None:
                self.faults[-1] = (self.faults[-1][0], at)
            elif item.since:
                self.faults.append((item.since, at))
                self.is_known = len(self.faults) == 1
        else:
            return  # "recovering": it isn't up yet
        self.state = state
        self.severity = max(self.severity, item.event.severity, key=SEVERITIES.index)

    def text(self, name: str, now: float) -> str:
        begin, _ = self.faults[0] if self.faults else (now, None)
        clock, count = clock_of(now), len(self.faults)
        if self.state in FAULTS:
            late = f" since {clock(begin)} UTC" if now - begin > LATE_S and count == 1 else ""
            often = f", for the {ordinal(count)} time since {clock(begin)} UTC" if count > 1 else ""
            cause = f" ({self.cause})" if self.cause else ""
            return f"{name} is {self.state}{late}{cause}{often}"
        if not self.faults:
            return f"{name} is up"
        closed = [(start, end) for start, end in self.faults if end is not None]
        whole = sum(end - start for start, end in closed)
        if self.is_known and count == 1:
            again = "up again" if self.worst != "degraded" else "no longer degraded"
            return f"{name} is {again} after {age(whole)}"
        span = _span(begin, closed[-1][1], now)
        was = self.worst or "down"
        if count == 1:
            return f"{name} was {was} {span}, {age(whole)}"
        return f"{name} was {was} {count} times {span}, {age(whole)} in all"


def summarize(items: Sequence[Item], families: Families, now: float) -> list[Line]:
    """A line for each thing that happened, the worst first."""
    paths: dict[str, dict[int, _Path]] = {}
    primaries: dict[int, list[tuple[str, str]]] = {}
    primary_severity: Severity = "info"
    others: dict[str, Severity] = {}
    for item in items:
        event = item.event
        if transition := transition_of(event):
            (uplink, family), state, cause = transition
            paths.setdefault(uplink, {}).setdefault(family, _Path()).add(item, state, cause)
        elif match := _PRIMARY.fullmatch(event.text) if event.kind == "primary" else None:
            primaries.setdefault(int(match[1]), []).append((match[2], match[3]))
            primary_severity = event.severity
        else:
            known = others.get(event.text, "info")
            others[event.text] = max(event.severity, known, key=SEVERITIES.index)
    lines = [line for name in paths for line in _uplink(name, paths[name], families, now)]
    if lines:
        primary_severity = "info"  # it follows from the others
    lines += [(severity, text) for text, severity in others.items()]
    lines += [(primary_severity, text) for text in _primary(primaries, families)]
    return sorted(lines, key=lambda line: -SEVERITIES.index(line[0]))


def _uplink(
    name: str, paths: Mapping[int, _Path], families: Families, now: float
) -> Iterator[Line]:
    """One line where the same happened in all families of the uplink, else one for each family."""
    seen = {family: path for family, path in paths.items() if path.state}
    alike = len({(path.state, len(path.faults)) for path in seen.values()}) == 1
    if alike and seen.keys() >= set(families.get(name, ())) and families.get(name):
        first = min(seen.values(), key=lambda path: path.faults[:1])
        yield max((p.severity for p in seen.values()), key=SEVERITIES.index), first.text(name, now)
        return
    for family, path in sorted(seen.items()):
        yield path.severity, path.text(f"{name} IPv{family}", now)


def _primary(primaries: Mapping[int, Moves], families: Families) -> Iterator[str]:
    """Where new connections go, unless that is where they went before."""
    moved = {f: changes[-1][1] for f, changes in primaries.items()}
    moved = {f: name for f, name in moved.items() if name != primaries[f][0][0]}
    known = {family for uplink in families.values() for family in uplink}
    if len(set(moved.values())) == 1 and known and moved.keys() >= known:
        yield f"new connections use {next(iter(moved.values()))}"
        return
    for family, name in sorted(moved.items()):
        yield f"new IPv{family} connections use {name}"


def clock_of(now: float) -> Callable[[float], str]:
    """Shows a time in UTC, with its date if that isn't today."""
    today = datetime.fromtimestamp(now, UTC).date()

    def show(at: float) -> str:
        then = datetime.fromtimestamp(at, UTC)
        return f"{then:%H:%M:%S}" if then.date() == today else f"{then:%Y-%m-%d %H:%M:%S}"

    return show


def _span(begin: float, end: float, now: float) -> str:
    same_day = clock_of(begin)(end)  # without its date, if that is the one of its beginning
    return f"{clock_of(now)(begin)}-{same_day} UTC"


def ordinal(number: int) -> str:
    tail = number % 100
    suffix = "th" if 10 < tail < 14 else {1: "st", 2: "nd", 3: "rd"}.get(tail % 10, "th")
    return f"{number}{suffix}"

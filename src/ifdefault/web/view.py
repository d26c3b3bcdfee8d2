"""What the first page shows: a snapshot of the engine as texts, ready for the template.

Rules: pure: texts from values alone, so that the page and its live parts say the same. Ages are
coarse, or every second would be news. No state is told by a colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ifdefault.model.config import SEVERITIES
from ifdefault.model.headline import WORST, headline
from ifdefault.model.health import Forced, Health, PathState
from ifdefault.model.report import DaemonStatus, Draining, Event, Named
from ifdefault.model.report_text import ROLES, cause, count, filling, grouped, rate, role
from ifdefault.web.live import Snapshot

MOST_ROWS = 50  # of names, publishers and servers
_RECENT = 12  # events on the first page
_SIGNS = {
    "up": "●",
    "degraded": "▲",
    "recovering": "◐",
    "down": "✕",
    "unproven": "○",
    "unknown": "?",
    "current": "●",
    "pending": "◐",
    "failing": "✕",
}


@dataclass(frozen=True, slots=True)
class When:
    """A time: local, as text; in UTC, for machines; and how long ago."""

    text: str
    iso: str
    ago: str = ""


@dataclass(frozen=True, slots=True)
class PathRow:
    family: str
    state: PathState
    since: When
    loss: str
    rtt: str
    role: str
    why: str


@dataclass(frozen=True, slots=True)
class UplinkCard:
    name: str
    state: PathState | Literal["unknown"]  # the worst of its paths
    role: str  # "" if it is unknown
    forced: Forced
    paths: tuple[PathRow, ...]
    rate_in: str = ""
    rate_out: str = ""
    connections: str = ""
    drain: str = ""
    line: str = ""  # how full it is


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table; `state` has a colour and a word."""

    cells: tuple[str, ...]
    state: str = ""


@dataclass(frozen=True, slots=True)
class EventRow:
    at: When
    kind: str
    uplink: str
    severity: str
    text: str


@dataclass(frozen=True, slots=True)
class Overview:
    headline: str
    tone: str  # good, warn or bad
    taken: When
    uplinks: tuple[UplinkCard, ...] = ()
    decision: tuple[Row, ...] = ()
    names: tuple[Row, ...] = ()
    publishers: tuple[Row, ...] = ()
    servers: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    events: tuple[EventRow, ...] = ()
    more: str = ""  # rows that are left out


def sign(state: str) -> str:
    return _SIGNS.get(state, "")


def overview(
    snapshot: Snapshot, uplinks: Sequence[str] = (), troubles: Iterable[str] = ()
) -> Overview:
    """`uplinks`: those of the config, in its order. `troubles`: of others than the engine."""
    status = snapshot.status
    taken = when(snapshot.at)
    events = tuple(event_row(event, snapshot.at) for event in snapshot.events[: -_RECENT - 1 : -1])
    if status is None:
        unknown = tuple(UplinkCard(name, "unknown", "", "auto", ()) for name in uplinks)
        return Overview(f"No status: {snapshot.trouble}", "bad", taken, unknown, events=events)
    cards = tuple(_cards(snapshot, status, uplinks))
    problems = tuple(dict.fromkeys((*_problems(status), *troubles)))
    text, tone = headline(status)
    if problems:
        text += f"; {count(len(problems), 'problem')} below"
        tone = "warn" if tone == "good" else tone
    left_out = max(len(status.dns.names), len(status.servers)) - MOST_ROWS
    return Overview(
        f"{text}.",
        tone,
        taken,
        cards,
        tuple(_decision(status)),
        tuple(_name(name, snapshot) for name in status.dns.names[:MOST_ROWS]),
        tuple(_publishers(snapshot, status)),
        tuple(_servers(snapshot, status)),
        problems,
        events,
        f"More than {MOST_ROWS} rows: the API has all." if left_out > 0 else "",
    )


# --- sections -----------------------------------------------------------------------------


def _cards(
    snapshot: Snapshot, status: DaemonStatus, uplinks: Sequence[str]
) -> Iterator[UplinkCard]:
    paths = grouped(status.health)
    counted = {u.uplink: u for u in snapshot.counters.uplinks} if snapshot.counters else {}
    drains = {drain.uplink: drain for drain in status.drains}
    lines = {load.uplink: filling(load) for load in status.lines}
    for name in dict.fromkeys([*uplinks, *paths]):
        of_uplink = paths.get(name, [])
        states = {path.state for path in of_uplink}
        rates = status.rates.get(name)
        roles = {role(path, status.decision) for path in of_uplink}
        yield UplinkCard(
            name,
            next((state for state in WORST if state in states), "unproven"),
            next((r for r in ROLES if r in roles), "no address"),
            status.forced.get(name, "auto"),
            tuple(_path(path, snapshot, status) for path in of_uplink),
            rate(rates[0]) if rates else "–",
            rate(rates[1]) if rates else "–",
            f"{counted[name].connections:,}" if name in counted else "–",
            _drain(drains[name], snapshot) if name in drains else "",
            lines.get(name, ""),
        )


def _path(path: Health, snapshot: Snapshot, status: DaemonStatus) -> PathRow:
    notes = ["suspect"] if path.bursting and path.state != "down" else []
    return PathRow(
        f"IPv{path.family}",
        path.state,
        when(snapshot.epoch(path.since_s), snapshot.at),
        f"{100 * path.loss_ratio:.{0 if path.loss_ratio >= 0.1 else 1}f} %",
        f"{path.rtt_ms:.1f} ms" if path.rtt_ms else "–",
        role(path, status.decision),
        ", ".join([*notes, cause(path)]),
    )


def _drain(drain: Draining, snapshot: Snapshot) -> str:
    text = "draining"
    if drain.until_s is not None:
        text += f" until {when(snapshot.epoch(drain.until_s)).text}"
    if drain.connections is not None:
        text += f", {count(drain.connections, 'connection')} left"
        if drain.connections:
            text += f", the oldest for at least {ago(drain.oldest_s)}"
    return text


def _decision(status: DaemonStatus) -> Iterator[Row]:
    for family, order in status.decision.order:
        usable, works = status.decision.usable_in(family), status.decision.works_in(family)
        unused = {u: " (standby)" if u in works else " (not used)" for u in order}
        places = [f"{u}{'' if u in usable else unused[u]}" for u in order]
        yield Row((f"IPv{family}", ", then ".join(places)))


def _name(name: Named, snapshot: Snapshot) -> Row:
    by_uplink: dict[str, list[str]] = {}
    for uplink, address in name.addresses:
        by_uplink.setdefault(uplink, []).append(address)
    leads = "\n".join(f"{u}: {' '.join(addresses)}" for u, addresses in by_uplink.items())
    since = ago(snapshot.at - snapshot.epoch(name.since_s))
    return Row((name.name, name.policy, f"{name.ttl} s", since, leads or "no address"))


def _publishers(snapshot: Snapshot, status: DaemonStatus) -> Iterator[Row]:
    for p in status.dns.publishers[:MOST_ROWS]:
        since = ago(snapshot.at - snapshot.epoch(p.since_s))
        detail = "\n".join(filter(None, (" ".join(p.seen), p.detail)))
        yield Row((f"{p.kind} {p.where}", p.name or p.zone or "any name", since, detail), p.state)


def _servers(snapshot: Snapshot, status: DaemonStatus) -> Iterator[Row]:
    for s in status.servers[:MOST_ROWS]:
        address = f"[{s.address}]:{s.port}" if ":" in s.address else f"{s.address}:{s.port}"
        since = ago(snapshot.at - snapshot.epoch(s.since_s))
        yield Row((s.forward, address, since, s.cause), s.state)


def _problems(status: DaemonStatus) -> Iterator[str]:
    """What keeps the daemon from its work, and what it has found; each with its remedy."""
    if status.held:
        yield f"held: {status.held}"
    for error in status.config_errors:
        yield f"the last config that worked is used: {error}"
    yield from (f"packets go astray: {text}" for text in status.astray)
    yield from (f"undone by another program: {text}" for text in status.conflicts)
    yield from (*status.problems, *status.unsaved, *status.dns.problems)
    for path in status.health:
        where = f"{path.uplink} IPv{path.family}"
        yield from (f"{where}: {t.probe} {t.note}" for t in path.targets if t.note)
        if path.gateway == "silent" and path.state != "down":
            yield f"{where}: its gateway doesn't answer"


def event_row(event: Event, now: float) -> EventRow:
    return EventRow(when(event.at, now), event.kind, event.uplink, event.severity, event.text)


def matching(
    events: Iterable[Event], *, text: str, kind: str, uplink: str, severity: str
) -> list[Event]:
    """The events that a filter lets through; an empty field lets all."""
    least = SEVERITIES.index(severity) if severity in SEVERITIES else 0
    words = text.casefold().split()
    return [
        event
        for event in events
        if kind in ("", event.kind)
        and uplink in ("", event.uplink)
        and SEVERITIES.index(event.severity) >= least
        and all(word in event.text.casefold() for word in words)
    ]


# --- times --------------------------------------------------------------------------------


def when(at: float, now: float | None = None) -> When:
    """Local time, with its date unless that is today's; `now`: also how long ago."""
    try:
        local = datetime.fromtimestamp(at).astimezone()
        today = datetime.fromtimestamp(at if now is None else now).astimezone().date()
    except (ValueError, OverflowError, OSError):
        return When("unknown", "")
    form = "%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M:%S"
    iso = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return When(local.strftime(form), iso, "" if now is None else ago(now - at))


def ago(seconds: float) -> str:
    """A duration, coarsely: "12 s", "3 min", "2 h 5 min", "4 d 3 h"."""
    minutes, s = divmod(int(max(seconds, 0.0)), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    if hours:
        return f"{hours} h {m} min"
    return f"{m} min" if minutes else f"{s} s"

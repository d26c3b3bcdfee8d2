"""The daemon's view of each path (an uplink and address family), as `status` shows it.

Rules: text from values alone. Times are shown as ages, since the clock of `DaemonStatus` is the
daemon's monotonic one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING

from ifdefault.cli.show.style import Line, Style
from ifdefault.cli.show.table import table
from ifdefault.model.health import BUDGET_USED_UP, Health
from ifdefault.model.month import day_name
from ifdefault.model.report_text import age, cause, grouped, role, used_of

if TYPE_CHECKING:
    from ifdefault.model.report import DaemonStatus

_HEADS = ("Uplink", "", "State", "Since", "Loss", "RTT", "Role", "Cause")


def lines(status: DaemonStatus) -> list[str]:
    """The table of paths, then a line for each problem."""
    drained = {drain.uplink for drain in status.drains}
    rows = table(_HEADS, list(_rows(status)))
    drains = drain_lines(status, drained)
    return [*rows, *drains, *grace_lines(status), *usage_lines(status), *remarks(status)]


def drain_lines(status: DaemonStatus, uplinks: Container[str]) -> Iterator[str]:
    """A line for each of these uplinks that is drained: how long, and what is left on it."""
    for drain in status.drains:
        if drain.uplink not in uplinks:
            continue
        parts = [f"{drain.uplink}: draining"]
        if drain.until_s is not None:
            parts[0] += f" until {at(drain.until_s - status.now_s)}"
        if drain.connections is not None:
            number = drain.connections
            parts.append(f"{number or 'no'} connection{'s' * (number != 1)} left")
            if number:
                parts.append(f"the oldest for at least {age(drain.oldest_s)}")
        yield Line(", ".join(parts), "warn")


def usage_lines(status: DaemonStatus) -> Iterator[str]:
    """A line for each uplink that has a budget or stands by: what it has used, and why."""
    usages = {usage.uplink: usage for usage in status.usage}
    standby = dict(status.decision.standby)
    for uplink in dict.fromkeys([*usages, *standby]):
        parts: list[str] = []
        style: Style | None = None
        if usage := usages.get(uplink):
            used = used_of(usage.used_bytes, usage.limit_bytes)
            parts.append(f"{used} until {day_name(usage.until)}")
            style = "bad" if usage.used_up else "warn" if usage.is_low else None
            parts += [BUDGET_USED_UP, "down"] if status.is_down_by_budget(uplink) else []
        if why := standby.get(uplink):
            parts += [why, "standby"]
        yield Line(f"{uplink}: {', '.join(parts)}", style)


def grace_lines(status: DaemonStatus) -> Iterator[str]:
    """A line for each uplink whose connections end soon, since they return to a better one."""
    until_s = {grace.uplink: grace.until_s for grace in reversed(status.graces)}
    for uplink, end_s in sorted(until_s.items()):
        yield f"{uplink}: {age(end_s - status.now_s)} until its connections return to a better one"


def has_problem(status: DaemonStatus) -> bool:
    """Whether an uplink is down, a name can't be published, or the daemon can't do its work."""
    is_down = any(path.state == "down" for path in status.health)
    is_failing = any(publisher.state == "failing" for publisher in status.dns.publishers)
    unfit = status.held or status.conflicts or status.config_errors or status.unsaved
    return is_down or is_failing or bool(unfit)


def _rows(status: DaemonStatus) -> Iterator[Sequence[str]]:
    for path in chain.from_iterable(grouped(status.health).values()):
        yield (
            path.uplink,
            f"IPv{path.family}",
            path.state,
            age(status.now_s - path.since_s),
            f"{100 * path.loss_ratio:.{0 if path.loss_ratio >= 0.1 else 1}f} %",
            f"{path.rtt_ms:.1f} ms" if path.rtt_ms else "-",
            role(path, status.decision),
            ", ".join(filter(None, (*_notes(path, status), cause(path)))),
        )


def _notes(path: Health, status: DaemonStatus) -> Iterator[str]:
    """A forced state, a suspected failure, and when a recovering path will be up."""
    if forced := status.forced.get(path.uplink):
        yield f"forced {forced}"
    if status.is_down_by_budget(path.uplink):
        yield BUDGET_USED_UP
    if path.bursting and path.state != "down":
        yield "suspect"
    if path.state == "recovering" and path.until_s > status.now_s:
        yield f"up in {age(path.until_s - status.now_s)}"


def remarks(status: DaemonStatus) -> Iterator[str]:
    """A line for each problem."""
    if status.held:
        yield Line(f"held: {status.held}", "warn")
    for problem in (*status.conflicts, *status.problems, *status.unsaved):
        yield Line(problem, "warn")
    notes = [
        (f"{path.uplink} IPv{path.family}", f"{target.probe} {target.note}")
        for path in status.health
        for target in path.targets
        if target.note
    ]
    notes += [
        (f"{path.uplink} IPv{path.family}", "its gateway doesn't answer")
        for path in status.health
        if path.gateway == "silent" and path.state != "down"
    ]
    for where, what in notes:
        yield Line(f"{where}: {what}", "warn")


def at(seconds: float) -> str:
    """The local time in so many seconds: "14:30", with its date if that isn't today."""
    now = datetime.now().astimezone()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"

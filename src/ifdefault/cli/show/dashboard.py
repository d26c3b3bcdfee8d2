"""The first screen of `top`: the state of the uplinks, names, servers, and the last events.

Rules: text from values alone. It fits any screen: columns and sections that have no room are left
out, the less important ones first; details are shown by the other screens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import TYPE_CHECKING

from ifdefault.cli.show import chart, paths
from ifdefault.cli.show.chart import Row
from ifdefault.cli.show.event_rows import event_row
from ifdefault.cli.show.samples import Samples, Slot, scale
from ifdefault.cli.show.style import STATES, Line, Style
from ifdefault.model import report_text
from ifdefault.model.headline import WORST, headline
from ifdefault.model.health import WHOLE
from ifdefault.model.report_text import age, grouped, rate

if TYPE_CHECKING:
    from ifdefault.model.health import Health
    from ifdefault.model.report import DaemonStatus, Event

_GAP = 2
_SPARK_S = 120.0  # what a sparkline shows
_SPARK = (12, 40)  # its narrowest and widest
_BAR = 6
_LEAST_PEAK = 1e6  # bit/s: the scale of the bars isn't finer
_FEWEST_EVENTS = 3
_SHORTEST = 3  # rows of a section that is cut
Pieces = list[tuple[str, Style | None]]
SORTS: dict[str, Callable[[str, list[Health], Samples], tuple[float, ...]]] = {
    "config": lambda *_: (),
    "state": lambda _, paths, __: (min(WORST.index(path.state) for path in paths),),
    "loss": lambda _, paths, __: (-max(path.loss_ratio for path in paths),),
    "RTT": lambda _, paths, __: (-max(path.rtt_ms for path in paths),),
    "traffic": lambda name, _, samples: (-_traffic(samples, name),),
}


@dataclass(frozen=True, slots=True)
class View:
    """What is shown, and how."""

    status: DaemonStatus
    samples: Samples
    events: Sequence[Event] = ()
    selected: str = ""
    sort: str = "config"
    problem: str = ""  # why this isn't fresh

    def uplinks(self) -> dict[str, list[Health]]:
        """The paths of each uplink, in the order that is shown."""
        groups, key = grouped(self.status.health), SORTS[self.sort]
        order = sorted(groups, key=lambda name: key(name, groups[name], self.samples))
        return {name: groups[name] for name in order}


def rows(view: View, height: int, columns: int) -> list[Row]:
    """At most `height` rows, which may be wider than the screen."""
    shown = [*headline_rows(view, columns)]
    table = list(_table(view, columns))
    shown += [Row(), *table] if height > len(table) + len(shown) + 1 else table
    if len(shown) > height:
        return _around(view, shown, height)
    for section in filter(None, (_remarks(view), _names(view), _servers(view))):
        room = height - len(shown) - 1 - (2 + _FEWEST_EVENTS if view.events else 0)
        if room >= min(len(section), _SHORTEST):
            shown += [Row(), *_some(section, room)]
    if (room := height - len(shown) - 2) > 0 and view.events:
        shown += [Row(), Row().add("Events", "head")]
        shown += [event_row(event, columns) for event in view.events[-room:]]
    return shown


def _some(rows: list[Row], room: int) -> list[Row]:
    """As many as there is room for, and how many there are besides."""
    if len(rows) <= room:
        return rows
    return [*rows[: room - 1], Row().add(f"and {len(rows) - room + 1} more", "note")]


def headline_rows(view: View, columns: int) -> Iterator[Row]:
    """The headline, wrapped onto a second row at most."""
    if view.problem:
        yield Row().add(view.problem, "bad")
        return
    head, (text, tone) = "", headline(view.status)
    if len(text) > columns:
        for part in text.split("; "):
            if head and len(head) + len(part) + 2 > columns:
                yield Row().add(head, tone)
                head = text[text.index(part) :]
                break
            head = f"{head}; {part}" if head else part
        text = head
    yield Row().add(text, tone)


def _around(view: View, shown: list[Row], height: int) -> list[Row]:
    """The headline, the heads and those uplinks that fit, the selected one among them."""
    at = next((n for n, row in enumerate(shown) if _is_selected(row, view.selected)), 0)
    fixed = 2
    first = max(fixed, min(at - (height - fixed - 1) // 2, len(shown) - (height - fixed)))
    seen = [*shown[:fixed], *shown[first : first + height - fixed]][:height]
    if height > fixed + 1 and (more := len(shown) - first - (height - fixed)) > 0:
        seen[-1] = Row().add(f"  and {more + 1} more rows below", "note")
    return seen


def _is_selected(row: Row, name: str) -> bool:
    return bool(name) and any(style == "mark" for _, style in row.pieces)


# --- the table of uplinks -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """`priority`: columns with the lowest ones are shown if there isn't room for all, those with
    the same one together."""

    head: str
    width: int
    priority: int
    cell: Callable[[Health, bool], Pieces]  # `first`: whether it is the uplink's first path
    right: bool = False


def _table(view: View, columns: int) -> Iterator[Row]:
    groups = view.uplinks()
    shown = _columns(view, groups, columns)
    head = Row()
    for column in shown:
        head.add(column.head, "head", -column.width if column.right else column.width)
        head.add(" " * _GAP)
    yield head
    for group in groups.values():
        for number, path in enumerate(group):
            row = Row()
            for column in shown:
                pieces = column.cell(path, number == 0)
                pad = " " * (column.width - sum(len(text) for text, _ in pieces))
                row.extend([(pad, None), *pieces] if column.right else [*pieces, (pad, None)])
                row.add(" " * _GAP)
            yield row


def _priority(column: _Column) -> int:
    return column.priority


def _columns(view: View, groups: dict[str, list[Health]], columns: int) -> list[_Column]:
    """Those that fit, in the order of the screen; the sparkline takes what is left."""
    everything = _all_columns(view, groups)
    chosen: list[_Column] = []
    for _, together in groupby(sorted(everything, key=_priority), _priority):
        more = [*chosen, *together]
        if sum(c.width + _GAP for c in more) - _GAP > columns:
            break
        chosen = more
    left = columns - sum(c.width + _GAP for c in chosen) + _GAP
    shown = [c for c in everything if c in chosen]
    return [_wider(view, c, left) if c.head == _SPARK_HEAD else c for c in shown]


_SPARK_HEAD = "Last 2 min"


def _all_columns(view: View, groups: dict[str, list[Health]]) -> list[_Column]:
    status = view.status
    longest = max((len(name) for name in groups), default=0)
    rates = status.rates
    peak = max(view.samples.peak(), _LEAST_PEAK)
    return [
        _Column("  Uplink", max(longest + 2, 8), 0, partial(_name, view)),
        _Column("", 4, 1, lambda path, _: [(f"IPv{path.family}", None)]),
        _Column("State", 10, 2, partial(_state, status)),
        _Column("Since", 6, 5, lambda p, _: [(age(status.now_s - p.since_s), None)], right=True),
        _Column("Loss", 6, 3, _loss, right=True),
        _Column("RTT", 8, 4, _rtt, right=True),
        _Column(_SPARK_HEAD, _SPARK[0], 7, partial(_spark, view, _SPARK[0])),
        _Column("In", 11, 8, lambda p, first: _rate(rates, p, 0, first), right=True),
        _Column("", _BAR, 11, lambda p, first: _bar(rates, p, 0, first, peak)),
        _Column("Out", 11, 8, lambda p, first: _rate(rates, p, 1, first), right=True),
        _Column("", _BAR, 11, lambda p, first: _bar(rates, p, 1, first, peak)),
        _Column("TCP", 6, 10, partial(_connections, view.samples), right=True),
        _Column("Role", 8, 6, lambda path, _: [_role(path, status)]),
    ]


def _wider(view: View, column: _Column, left: int) -> _Column:
    width = min(column.width + left, _SPARK[1])
    cell = partial(_spark, view, width)
    return _Column(column.head, width, column.priority, cell)


def _name(view: View, path: Health, first: bool) -> Pieces:
    selected = path.uplink == view.selected
    marker = "> " if selected and first else "  "
    return [(marker, "head"), (path.uplink if first else "", "mark" if selected else "head")]


def _state(status: DaemonStatus, path: Health, _: bool) -> Pieces:
    if forced := status.forced.get(path.uplink):
        word = {"up": "forced up", "down": "off", "drain": "draining"}[forced]
        return [(word, "warn")]
    if status.is_down_by_budget(path.uplink):
        return [("off", "warn")]
    return [(path.state, STATES.get(path.state))]


def _loss(path: Health, _: bool) -> Pieces:
    percent = 100 * path.loss_ratio
    style: Style | None = "bad" if percent >= 10 else "warn" if percent >= 1 else None
    return [(f"{percent:.{0 if percent >= 10 else 1}f} %", style)]


def _rtt(path: Health, _: bool) -> Pieces:
    return [(f"{path.rtt_ms:.{1 if path.rtt_ms < 1000 else 0}f} ms" if path.rtt_ms else "-", None)]


def _role(path: Health, status: DaemonStatus) -> tuple[str, Style | None]:
    role = report_text.role(path, status.decision)
    return role, "head" if role == "primary" else None


def _connections(samples: Samples, path: Health, first: bool) -> Pieces:
    count = samples.connections.get(path.uplink)
    return [("" if count is None or not first else str(count), None)]


def _rate(
    rates: dict[str, tuple[float, float]], path: Health, direction: int, first: bool
) -> Pieces:
    known = rates.get(path.uplink)
    return [(rate(known[direction]) if known and first else "", None)]


def _bar(
    rates: dict[str, tuple[float, float]], path: Health, direction: int, first: bool, peak: float
) -> Pieces:
    known = rates.get(path.uplink)
    return [(chart.bar(known[direction] / peak, _BAR) if known and first else "", "note")]


def _spark(view: View, width: int, path: Health, _: bool) -> Pieces:
    slot_s = _SPARK_S / width
    key = (path.uplink, path.family)
    return sparkline(view.samples.slots(key, view.status.now_s, width, slot_s))


def sparkline(slots: Sequence[Slot]) -> Pieces:
    """A cell for each slot: its round trip, yellow where probes were lost, a red mark where all
    were."""
    top = scale(slots)
    return [_cell(slot, top) for slot in slots]


def _cell(slot: Slot, top: float) -> tuple[str, Style | None]:
    if slot.down or (slot.lost and slot.rtt_ms is None):
        return chart.lost_mark(), "bad"
    if slot.rtt_ms is None:
        return " ", None
    return chart.level(slot.rtt_ms / top if top else 0.0), "warn" if slot.lost else "good"


def _traffic(samples: Samples, name: str) -> float:
    rates = samples.rates.get(name)
    return rates[-1][1] + rates[-1][2] if rates else 0.0


# --- below the table ----------------------------------------------------------------------


def _remarks(view: View) -> list[Row]:
    """Why: a line for each path that isn't simply up, and for each problem."""
    status = view.status
    lines: list[str] = [
        f"{path.uplink} IPv{path.family}: {path.state}: {path.cause}"
        for path in chain.from_iterable(view.uplinks().values())
        if path.state != "up" and path.cause
    ]
    lines += paths.drain_lines(status, {d.uplink for d in status.drains})
    lines += paths.grace_lines(status)
    lines += paths.remarks(status)
    lines += [
        Line(f"{load.uplink}: {report_text.filling(load)}", "warn" if load.full else None)
        for load in status.lines
        if load.share < WHOLE
    ]
    lines += [Line(problem, "bad") for problem in (*status.astray, *status.config_errors)]
    return [Row().add(line, line.style if isinstance(line, Line) else None) for line in lines]


def _names(view: View) -> list[Row]:
    dns = view.status.dns
    if not dns.names:
        return []
    width = max(len(name.name) for name in dns.names)
    shown = [Row().add("Name", "head", width).add("  ").add("Leads to", "head")]
    for name in dns.names:
        to = ", ".join(f"{uplink} {address}" for uplink, address in name.addresses)
        shown.append(Row().add(name.name, None, width).add("  ").add(to or "no address"))
    for publisher in dns.publishers:
        if publisher.state != "current":
            detail = f": {publisher.detail}" if publisher.detail else ""
            text = f"{publisher.kind} {publisher.where}: {publisher.state}{detail}"
            shown.append(Row().add(text, "bad" if publisher.state == "failing" else "warn"))
    return shown


def _servers(view: View) -> list[Row]:
    """Servers by service: "tcp:443  2 of 3 up; 192.0.2.7:443 is down: refused"."""
    by_service: dict[str, list[tuple[str, str, str]]] = {}
    for server in view.status.servers:
        host = f"[{server.address}]" if ":" in server.address else server.address
        entry = (f"{host}:{server.port}", server.state, server.cause)
        by_service.setdefault(server.forward, []).append(entry)
    if not by_service:
        return []
    shown = [Row().add("Forwards", "head")]
    for service, servers in by_service.items():
        down = [(where, cause) for where, state, cause in servers if state == "down"]
        text = f"{len(servers) - len(down)} of {len(servers)} servers up"
        text += "".join(f"; {where} is down: {cause}" for where, cause in down)
        style: Style | None = "bad" if len(down) == len(servers) else "warn" if down else None
        shown.append(Row().add(f"{service}  ").add(text, style))
    return shown

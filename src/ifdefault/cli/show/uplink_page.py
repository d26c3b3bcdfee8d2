"""One uplink on a screen of its own: its targets, its last minutes, and why it is used or not.

Rules: as in `dashboard`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ifdefault.cli.show import chart, paths
from ifdefault.cli.show.chart import Row
from ifdefault.cli.show.dashboard import View, sparkline
from ifdefault.cli.show.samples import SPAN_S, scale
from ifdefault.cli.show.style import STATES
from ifdefault.model import report_text
from ifdefault.model.health import BUDGET_USED_UP
from ifdefault.model.report_text import age, grouped, rate

if TYPE_CHECKING:
    from ifdefault.model.health import Health

_MARGIN = 18  # beside a chart, for its scale
_NARROWEST, _WIDEST = 20, 100  # of a chart
_LEAST_BITS = 1e4


def rows(view: View, height: int, columns: int) -> list[Row]:
    """All rows; the screen scrolls them."""
    health = grouped(view.status.health).get(view.selected)
    if not health:
        return [Row().add(f"{view.selected or 'no uplink'}: not there at present", "warn")]
    tall = 4 if height >= 16 + 14 * len(health) else 2
    shown = [_title(view, health)]
    for path in health:
        shown += [Row(), *_path(view, path, columns, tall)]
    shown += [Row(), *_traffic(view, columns)]
    shown += [Row(), *_decision(view, health)]
    return shown


def _title(view: View, health: list[Health]) -> Row:
    row = Row().add(view.selected, "mark").add("  ")
    forced = view.status.forced.get(view.selected)
    row.add(f"forced {forced} by the operator" if forced else "follows its probes")
    for drain in paths.drain_lines(view.status, {view.selected}):
        row.add(f"; {drain.partition(': ')[2]}", "warn")
    if (count := view.samples.connections.get(view.selected)) is not None:
        row.add(f"; {count} TCP connection{'s' * (count != 1)}")
    return row


def _path(view: View, path: Health, columns: int, tall: int) -> Iterator[Row]:
    since = age(view.status.now_s - path.since_s)
    row = Row().add(f"IPv{path.family}", "head").add("  ").add(path.state, STATES.get(path.state))
    row.add(f" for {since}" + (f": {path.cause}" if path.cause else ""))
    yield row
    percent = 100 * path.loss_ratio
    loss, rtt = f"loss {percent:.1f} %", f"RTT {path.rtt_ms:.1f} ms" if path.rtt_ms else "no RTT"
    about = [loss, rtt, f"gateway {path.gateway}", report_text.role(path, view.status.decision)]
    if path.state == "recovering" and path.until_s > view.status.now_s:
        about.append(f"up in {age(path.until_s - view.status.now_s)}")
    yield Row().add("  " + ", ".join(about))
    yield from _chart(view, path, columns, tall)
    key = (path.uplink, path.family)
    if key in view.samples.minutes:
        hour = view.samples.hour(key, time.time(), min(60, _chart_width(columns)))
        yield Row().add("last hour", "note", -(_MARGIN - 1)).add(" ").extend(sparkline(hour))
    yield from _targets(path)


def _chart(view: View, path: Health, columns: int, tall: int) -> Iterator[Row]:
    """Round trips, with marks of lost probes below them."""
    width = _chart_width(columns)
    key = (path.uplink, path.family)
    slots = view.samples.slots(key, view.status.now_s, width, SPAN_S / width)
    top = scale(slots)
    ratios = [None if s.rtt_ms is None else s.rtt_ms / top for s in slots]
    for number, text in enumerate(chart.columns_chart(ratios, tall)):
        label = f"{top:.3g} ms" if number == 0 else "0" if number == tall - 1 else ""
        row = Row().add(label, "note", -(_MARGIN - 1)).add(" ")
        yield row.extend([(text, "good")])
    lost = [chart.lost_mark() if s.lost or s.down else " " for s in slots]
    label = f"{SPAN_S / 60:.0f} min"
    if any(mark.strip() for mark in lost):
        yield Row().add("lost", "note", -(_MARGIN - 1)).add(" ").add("".join(lost), "bad")
    yield (
        Row()
        .add("", None, _MARGIN)
        .add(f"{label} ago", "note")
        .add("now", "note", -(width - len(label) - 4))
    )


def _chart_width(columns: int) -> int:
    return max(_NARROWEST, min(columns - _MARGIN, _WIDEST))


def _targets(path: Health) -> Iterator[Row]:
    if not path.targets:
        return
    width = max(6, *(len(target.probe) for target in path.targets))
    head = Row().add("  ").add("Target", "head", width)
    yield head.add("Answered", "head", -10).add("Lost", "head", -8).add("RTT", "head", -11)
    for target in path.targets:
        rtt = f"{target.rtt_ms:.1f} ms" if target.rtt_ms else "-"
        row = Row().add("  ").add(target.probe, None, width).add(str(target.answered), None, -10)
        row.add(str(target.lost), "warn" if target.lost else None, -8).add(rtt, None, -11)
        yield row.add(f"  {target.note}", "warn")


def _traffic(view: View, columns: int) -> Iterator[Row]:
    """Bit/s in and out: a line each, as high as the greater one's peak."""
    rates = view.status.rates.get(view.selected)
    if rates is None:
        return
    width = _chart_width(columns)
    slots = view.samples.rate_slots(view.selected, view.status.now_s, width, SPAN_S / width)
    peak = max((max(slot) for slot in slots if slot), default=0.0)
    title = Row().add("Traffic", "head").add(f"  at most {rate(peak)} in {SPAN_S / 60:.0f} min")
    for load in view.status.lines:
        if load.uplink == view.selected:
            title.add(f"; {report_text.filling(load)}", "warn" if load.full else None)
    yield title
    for direction, name in enumerate(("in", "out")):
        cells = "".join(
            chart.level(slot[direction] / max(peak, _LEAST_BITS)) if slot else " " for slot in slots
        )
        label = Row().add(f"  {name}", None, 6).add(rate(rates[direction]), None, 7 - _MARGIN)
        yield label.add(" ").extend([(cells, "note")])


def _decision(view: View, health: list[Health]) -> Iterator[Row]:
    """What uses it, and what the order of the uplinks is."""
    decision = view.status.decision
    yield Row().add("Decision", "head")
    for path in health:
        order = decision.ranking(path.family)
        usable = decision.usable_in(path.family)
        listed = ", ".join(n if n in usable else f"({n})" for n in order) or "none"
        yield Row().add(f"  IPv{path.family}: {_why(view, path)}; order of uplinks: {listed}")
    for name in view.status.dns.names:
        if led := [address for uplink, address in name.addresses if uplink == view.selected]:
            yield Row().add(f"  {name.name} leads here: {', '.join(led)}")
    for problem in view.status.problems:
        if view.selected in problem:
            yield Row().add(f"  {problem}", "warn")


def _why(view: View, path: Health) -> str:
    role, forced = report_text.role(path, view.status.decision), view.status.forced.get(path.uplink)
    if role == "primary":
        return "primary: new connections leave by it"
    if role == "usable":
        return "usable: new connections leave by it if those before it fail"
    if role == "standby":
        why = dict(view.status.decision.standby).get(path.uplink)
        return f"standby ({why}): new connections leave by it if all others fail"
    if forced:
        return f"not used: forced {forced}"
    if view.status.is_down_by_budget(path.uplink):
        return f"not used: {BUDGET_USED_UP}"
    return f"not used: {path.state}"

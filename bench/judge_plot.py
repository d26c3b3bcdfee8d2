"""The plot of `judge`: delay against false alarms, one panel a link, ours beside the peers'.

Rules: plain SVG of fixed size, readable on its own; equal samples give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.results import Report
from bench.stats import median
from bench.svg import document
from bench.svg import text as _text

WIDTH, HEIGHT = 300, 240
LEFT, TOP, RIGHT, BOTTOM = 46, 26, 12, 40
NEVER = 0.06  # where "none" is on the axis of false alarms
X_FROM, X_TO = 0.01, 1e6
Y_FROM, Y_TO = 0.2, 200.0
COLOURS = {"ifdefault": "#00875a", "dpinger": "#2457c5", "lsm": "#d9730d", "mwan3": "#8e44ad"}
HEAD = 58
LANE = 11
MOSTLY_DOWN = 0.5  # a rule that calls the link down for so much of the time has no delay


@dataclass(frozen=True, slots=True)
class Point:
    """`shipped`: by default settings."""

    who: str
    alarms_per_30_days: float
    delay_s: float
    shipped: bool
    label: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A kind of link. `bound_s`: the least delay that theory allows."""

    title: str
    bound_s: float
    points: tuple[Point, ...]


def draw(report: Report) -> str:
    panels = list(_panels(report))
    columns = 3
    rows = -(-len(panels) // columns)
    parts = list(_legend())
    for at, panel in enumerate(panels):
        x, y = at % columns * WIDTH, HEAD + at // columns * HEIGHT
        parts.append(f'<g transform="translate({x},{y})">')
        parts += _panel(panel.title, panel.bound_s, panel.points)
        parts.append("</g>")
    return document(columns * WIDTH, HEAD + rows * HEIGHT, parts)


def _panels(report: Report) -> Iterator[Panel]:
    """One for each row of our own table, with the peers' samples on the same link."""
    ours, shipped_rules = report.tables[:2]
    bound, alarms = ours.heads.index("bound, median"), ours.heads.index("false alarms in 30 days")
    shipped = {f"{row[1]}: {row[2]}" for row in shipped_rules.rows}
    for row, own in zip(ours.rows, report.samples["ours"], strict=True):
        learned_s = median(own["learned_s"])
        points = [Point("ifdefault", float(row[alarms]), learned_s, True, "ifdefault, learned")]
        for peer in report.samples["peers"]:
            if peer["link"] == own["link"] and peer["dead"] < MOSTLY_DOWN:
                rate = peer["falls"] / peer["days"] * 30
                rule = peer["rule"]
                who = rule.partition(":")[0]
                delay_s = median(peer["delays_s"])
                points.append(Point(who, rate, delay_s, rule in shipped, rule))
        yield Panel(row[0], float(row[bound].split()[0]), tuple(points))


def _legend() -> Iterator[str]:
    yield _text(
        LEFT, 18, "Median delay until a dead link is noticed, against false alarms", size=14
    )
    x = LEFT
    for who, colour in COLOURS.items():
        yield f'<circle cx="{x + 5}" cy="36" r="4.5" fill="{colour}"/>'
        yield _text(x + 14, 40, who)
        x += 85
    yield f'<rect x="{x}" y="31.5" width="9" height="9" fill="none" stroke="#444"/>'
    yield _text(x + 14, 40, "square: as shipped; dots: other settings")
    yield f'<path d="M{x + 250} 36h22" stroke="#00875a" stroke-dasharray="5 3"/>'
    yield _text(x + 277, 40, "least that theory allows")


def _panel(title: str, bound_s: float, points: Sequence[Point]) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield _text(LEFT, TOP - 8, title, size=12)
    limit = _x(1.0)
    yield (
        f'<rect x="{LEFT}" y="{TOP}" width="{limit - LEFT:.1f}" height="{bottom - TOP}"'
        ' fill="#eef7f2"/>'
    )
    for value in (0.5, 1, 2, 5, 10, 20, 50, 100):
        y = _y(value)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>'
        yield _text(LEFT - 5, y + 4, f"{value:g} s", anchor="end", size=9)
    yield _text(_x(NEVER), bottom + 13, "none", anchor="middle", size=9)
    for value, label in ((1.0, "1"), (100.0, "100"), (1e4, "10⁴"), (1e6, "10⁶")):
        x = _x(value)
        yield f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#ddd"/>'
        yield _text(x, bottom + 13, label, anchor="middle", size=9)
    yield _text((LEFT + right) / 2, bottom + 28, "false alarms in 30 days", "middle", 10)
    yield (
        f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" fill="none"'
        ' stroke="#888"/>'
    )
    y = _y(bound_s)
    yield f'<path d="M{LEFT} {y:.1f}H{limit:.1f}" stroke="#00875a" stroke-dasharray="5 3"/>'
    for point in sorted(points, key=lambda p: (p.who == "ifdefault", p.shipped)):
        yield _mark(point)


def _mark(point: Point) -> str:
    x, y = _x(point.alarms_per_30_days or NEVER), _y(point.delay_s)
    if not point.alarms_per_30_days:  # side by side, each in its lane
        x += (list(COLOURS).index(point.who) - 1.2) * LANE
    colour = COLOURS[point.who]
    title = f"<title>{escape(point.label)}</title>"
    if point.who == "ifdefault":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}">{title}</circle>'
    if point.shipped:
        return (
            f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="none"'
            f' stroke="{colour}" stroke-width="2">{title}</rect>'
        )
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}" fill-opacity="0.7">'
        f"{title}</circle>"
    )


def _x(value: float) -> float:
    return LEFT + _share(value, X_FROM, X_TO) * (WIDTH - RIGHT - LEFT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - _share(value, Y_FROM, Y_TO) * (HEIGHT - BOTTOM - TOP)


def _share(value: float, low: float, high: float) -> float:
    """0..1 on a logarithmic axis."""
    part = math.log(value / low) / math.log(high / low)
    return min(max(part, 0.0), 1.0)

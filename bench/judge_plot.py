"""The judge's plot: delay against false alarms, one panel a line, ours beside the peers'.

Rules: plain SVG of fixed size, readable on its own; the same points give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 300, 240
LEFT, TOP, RIGHT, BOTTOM = 46, 26, 12, 40
NEVER = 0.06  # where "none was seen" stands on the axis of false alarms
X_FROM, X_TO = 0.01, 1e6
Y_FROM, Y_TO = 0.2, 200.0
COLOURS = {"ifdefault": "#00875a", "dpinger": "#2457c5", "lsm": "#d9730d", "mwan3": "#8e44ad"}
HEAD = 58
LANE = 11


@dataclass(frozen=True, slots=True)
class Point:
    """`shipped`: by default settings."""

    who: str
    alarms_per_30_days: float
    delay_s: float
    shipped: bool
    label: str


def draw(panels: Sequence[tuple[str, float, Sequence[Point]]]) -> str:
    """`panels`: title, the least delay that theory allows, points."""
    columns = 3
    rows = -(-len(panels) // columns)
    width, height = columns * WIDTH, HEAD + rows * HEIGHT
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_legend(),
    ]
    for at, (title, bound_s, points) in enumerate(panels):
        x, y = at % columns * WIDTH, HEAD + at // columns * HEIGHT
        parts.append(f'<g transform="translate({x},{y})">')
        parts += _panel(title, bound_s, points)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> Iterator[str]:
    yield _text(
        LEFT, 18, "Median delay until a dead line is noticed, against false alarms", size=14
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


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' fill="#222">{escape(text)}</text>'
    )


def _x(value: float) -> float:
    return LEFT + _place(value, X_FROM, X_TO) * (WIDTH - RIGHT - LEFT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - _place(value, Y_FROM, Y_TO) * (HEIGHT - BOTTOM - TOP)


def _place(value: float, low: float, high: float) -> float:
    """0..1 on a logarithmic axis."""
    part = math.log(value / low) / math.log(high / low)
    return min(max(part, 0.0), 1.0)

"""Small SVG plots: text, logarithmic and linear axes, and rows of dots. Pure.

Rules: plain SVG of fixed size, readable without a legend elsewhere; equal data give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

OURS, PEER = "#00875a", "#5b6b82"
INK, GRID, FRAME = "#222", "#ddd", "#888"
_LEFT, _RIGHT, _TOP, _BOTTOM, _ROW = 300, 56, 44, 34, 22
_PLOT_WIDTH = 500


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from `low` to `high` with labelled `ticks`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: str
    unit: str
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """0 to 1 along the axis; values beyond its ends are put at the ends."""
        if self.logarithmic:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(max(part, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Row:
    """Samples of one system or case. The row's median is labelled."""

    name: str
    samples: Sequence[float]
    ours: bool = True


def document(width: int, height: int, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
    )
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, background, *parts, "</svg>", ""])


def text(x: float, y: float, value: str, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' fill="{INK}">{escape(value)}</text>'
    )


def strips(title: str, axis: Axis, rows: Sequence[Row]) -> str:
    """A dot for each sample, a bar at the median, one row a system."""
    width = _LEFT + _PLOT_WIDTH + _RIGHT
    height = _TOP + _ROW * len(rows) + _BOTTOM
    return document(width, height, _strips(title, axis, rows, height - _BOTTOM))


def _strips(title: str, axis: Axis, rows: Sequence[Row], bottom: int) -> Iterator[str]:
    def x(value: float) -> float:
        return _LEFT + axis.share(value) * _PLOT_WIDTH

    yield text(12, 22, title, size=14)
    for tick in axis.ticks:
        yield f'<path d="M{x(tick):.1f} {_TOP}V{bottom}" stroke="{GRID}"/>'
        yield text(x(tick), bottom + 14, f"{tick:g}", anchor="middle", size=9)
    yield text(_LEFT + _PLOT_WIDTH / 2, bottom + 28, axis.label, anchor="middle", size=10)
    for number, row in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        colour = OURS if row.ours else PEER
        yield text(_LEFT - 10, y + 4, row.name, anchor="end")
        for sample in row.samples:
            yield (
                f'<circle cx="{x(sample):.1f}" cy="{y:.1f}" r="3" fill="{colour}"'
                ' fill-opacity="0.35"/>'
            )
        middle = _median(row.samples)
        yield f'<path d="M{x(middle):.1f} {y - 8:.1f}v16" stroke="{colour}" stroke-width="2.5"/>'
        label = f"{middle:.3g} {axis.unit}"
        yield text(_LEFT + _PLOT_WIDTH + 6, y + 4, label, size=10)
    yield (
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_PLOT_WIDTH}" height="{bottom - _TOP}"'
        f' fill="none" stroke="{FRAME}"/>'
    )


def _median(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2

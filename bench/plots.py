"""The plots of docs/figures.md, each drawn from the samples of one bench.

Rules: a plot takes a Report and returns an SVG; PLOTS names those that there are. The file is
docs/NAME.svg. Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench import chaos_outcome, judge_plot, svg
from bench.chaos_host import HostPeriod
from bench.chaos_outcome import DEVICES, FaultPeriod, Record
from bench.observer import Observation
from bench.results import Report
from bench.svg import Axis, Row

_SECONDS = Axis(
    0.2, 200, (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200), "seconds, logarithmic", "s", True
)
_MILLISECONDS = Axis(
    2, 1000, (2, 5, 10, 20, 50, 100, 200, 500, 1000), "ms, logarithmic", "ms", True
)
_SHORT = Axis(0, 1.2, (0, 0.2, 0.4, 0.6, 0.8, 1, 1.2), "seconds", "s")
_LONG = Axis(0, 4, (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4), "seconds", "s")
_CURVES = ("#00875a", "#57b894", "#8e44ad", "#c39bd3", "#d9730d", "#2457c5", "#5b6b82")
_WIDTH, _HEIGHT = 860, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 320, 40, 40


def failover(report: Report) -> str:
    """Each trial of each system: how long until traffic or answers have left the dead uplink."""
    rows = []
    for key, trials in report.samples["trials"].items():
        title, _, fault = key.partition(" | ")
        times = [trial["down_s"] for trial in trials]
        samples = [max(gauges) for gauges in times if None not in gauges]
        if fault == "blackhole" and samples:
            rows.append(Row(_short(title), samples, title.startswith("ifdefault")))
    title = "Provider forwards nothing: time until the dead uplink is no longer used"
    return svg.strips(title, _SECONDS, sorted(rows, key=lambda row: (not row.ours, row.name)))


def _short(title: str) -> str:
    """The system and its settings, cut so that they fit beside the plot."""
    return title if len(title) <= 46 else title[:45].rstrip(" ,;") + "…"


def dns_failover(report: Report) -> str:
    """Each trial: how long after detection the dead address is gone from the answers."""
    rows = []
    for key, trials in report.samples.items():
        name, _, cut = key.partition(" | ")
        lags = [
            (trial["gone_s"] - trial["detected_s"]) * 1000
            for trial in trials
            if trial["gone_s"] is not None
        ]
        rows.append(Row(f"{name}, {cut}", lags))
    return svg.strips("From detection to the answers of the DNS", _MILLISECONDS, rows)


def dns_clients(report: Report) -> str:
    """Failed connections, in per cent of those begun in each second after the cut."""
    curves = []
    for key, trials in report.samples.items():
        title, _, cut = key.partition(" | ")
        if cut == "blackhole":
            curves.append((title, _failed_shares(trials)))
    return svg.document(_WIDTH, _HEIGHT, _curves(curves))


def _failed_shares(trials: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    begun: dict[int, int] = {}
    failed: dict[int, int] = {}
    for second, some, bad in (row for trial in trials for row in trial["by_second"]):
        begun[second] = begun.get(second, 0) + some
        failed[second] = failed.get(second, 0) + bad
    return [(s, 100 * failed[s] / begun[s]) for s in sorted(begun) if -2 <= s < 24 and begun[s]]


def _curves(curves: Sequence[tuple[str, list[tuple[int, float]]]]) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(second: float) -> float:
        return _LEFT + (second + 2) / 26 * (right - _LEFT)

    def y(share: float) -> float:
        return bottom - share / 60 * (bottom - _TOP)

    yield svg.text(
        12, 22, "Failed connections while one of two providers is dead (0 to 20 s)", size=14
    )
    yield (
        f'<rect x="{x(0):.1f}" y="{_TOP}" width="{x(20) - x(0):.1f}" height="{bottom - _TOP}"'
        ' fill="#fbeeee"/>'
    )
    for share in range(0, 61, 10):
        yield f'<path d="M{_LEFT} {y(share):.1f}H{right}" stroke="{svg.GRID}"/>'
        yield svg.text(_LEFT - 6, y(share) + 4, f"{share} %", anchor="end", size=9)
    for second in range(0, 25, 4):
        yield svg.text(x(second), bottom + 14, f"{second}", anchor="middle", size=9)
    label = "seconds after the provider died"
    yield svg.text((_LEFT + right) / 2, bottom + 30, label, anchor="middle", size=10)
    for number, ((name, points), colour) in enumerate(zip(curves, _CURVES, strict=False)):
        path = "".join(
            f"{'L' if at else 'M'}{x(second + 0.5):.1f} {y(min(share, 60)):.1f}"
            for at, (second, share) in enumerate(points)
        )
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        middle = _TOP + 14 + 20 * number
        yield f'<path d="M{right + 14} {middle}h20" stroke="{colour}" stroke-width="3"/>'
        yield svg.text(right + 40, middle + 4, _short(name))
    yield (
        f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}"'
        f' fill="none" stroke="{svg.FRAME}"/>'
    )


def chaos(report: Report) -> str:
    """Each death of the primary: how long it stayed primary, by fault."""
    record = Record(
        DEVICES,
        faults=[FaultPeriod(**row) for row in report.samples["faults"]],
        host=[HostPeriod(**row) for row in report.samples.get("host", [])],
        defaults={
            far: [Observation(**row) for row in rows]
            for far, rows in report.samples["defaults"].items()
        },
    )
    took_s: dict[str, list[float]] = {}
    for move in chaos_outcome.failovers(record):
        took_s.setdefault(move.fault, []).append(move.took_s)
    rows = [Row(fault, took_s[fault]) for fault in chaos_outcome.KINDS if fault in took_s]
    longest_s = max((sample for row in rows for sample in row.samples), default=0.0)
    axis = _SHORT if longest_s <= _SHORT.high else _LONG
    return svg.strips("Random faults: time until the default has left the dead uplink", axis, rows)


PLOTS: dict[str, Callable[[Report], str]] = {
    "failover": failover,
    "dns_clients": dns_clients,
    "dns_failover": dns_failover,
    "chaos": chaos,
    "judge": judge_plot.draw,
}

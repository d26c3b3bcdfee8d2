"""`planner`: the time of planning, which is pure, and of applying, in process.

Rules: planning is timed on constructed facts; applying on real interfaces, from reading the config
to verifying the kernel, with the calls of `ifdefault apply`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice

from bench import many_uplinks
from bench.clock import log, times_ms
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from bench.subject import Applied, Subject, config
from ifdefault.lab.topology import Topology, load
from ifdefault.lab.world import World
from ifdefault.model.kernel import Facts
from ifdefault.plan import numbers
from ifdefault.plan.desired import plan
from ifdefault.plan.diff import diff

PLAN_TARGET_MS = 20
APPLY_TARGETS_MS = {2: 50, 31: 250}
_PLANS = 60
_UDP_PORTS = (443, 51820)
_HOW = """\
*Plan* is `plan()` on constructed facts of 31 uplinks with 8 IPv4 and 8 IPv6 addresses each. *Apply*
is what `ifdefault apply` does, in process, from reading the config to verifying the kernel and
saving the state, on real interfaces with IPv4 and IPv6: *first* starts with nothing of ours in the
kernel, *change* makes another uplink primary, *nothing* finds nothing to change. For 31 uplinks the
interfaces are veths in one namespace."""


def run() -> Report:
    log("planning for 31 uplinks x 16 addresses")
    samples: dict[str, list[float]] = {
        "plan": _time_plan(many_uplinks.facts()),
        "plan, wildcard UDP": _time_plan(many_uplinks.facts(udp_ports=_UDP_PORTS)),
        "diff": _time_diff(many_uplinks.facts()),
    }
    rows = []
    worlds: tuple[tuple[int, Topology, Callable[[int], str], int], ...] = (
        (2, load("two"), _two, 20),
        (31, many_uplinks.topology(), many_uplinks.config_text, 12),
    )
    for uplinks, topology, text, count in worlds:
        log(f"applying for {uplinks} uplinks")
        for kind, applied in _time_apply(topology, text, count).items():
            key = f"apply, {uplinks} uplinks, {kind}"
            samples[key] = [one.total_ms for one in applied]
            samples[f"{key}, prepare"] = [one.prepare_ms for one in applied]
            samples[f"{key}, commit"] = [one.commit_ms for one in applied]
            rows.append(_row(str(uplinks), kind, applied))
    heads = ("uplinks", "", "operations", "prepare", "commit", "both, median", "both, p95")
    return Report(
        "Planning and applying",
        _HOW,
        _figures(samples),
        (Table("Stages of apply", heads, tuple(rows)),),
        samples,
    )


def _figures(samples: dict[str, list[float]]) -> tuple[Figure, ...]:
    named: list[tuple[str, str, int | None]] = [
        ("plan, 31 uplinks x 16 addresses", "plan", PLAN_TARGET_MS),
        ("plan with two wildcard UDP ports", "plan, wildcard UDP", None),
        ("diff against an unconfigured host", "diff", None),
    ]
    for uplinks, apply_ms in APPLY_TARGETS_MS.items():
        for kind in ("first", "change", "nothing"):
            key = f"apply, {uplinks} uplinks, {kind}"
            named.append((key, key, apply_ms))
    figures = []
    for what, key, target in named:
        figures.append(Figure(f"{what}: median", median(samples[key]), "ms", target))
        figures.append(Figure(f"{what}: p95", quantile(samples[key], 0.95), "ms", target))
    return tuple(figures)


def _time_plan(facts: Facts) -> list[float]:
    many_config = many_uplinks.config()
    numbering = numbers.assign([u.name for u in many_config.uplinks], {})
    return times_ms(lambda: plan(many_config, facts, numbering), _PLANS, warm_up=3)


def _time_diff(facts: Facts) -> list[float]:
    many_config = many_uplinks.config()
    numbering = numbers.assign([u.name for u in many_config.uplinks], {})
    desired = plan(many_config, facts, numbering).desired
    return times_ms(lambda: diff(facts, desired, ()), _PLANS, warm_up=3)


def _time_apply(
    topology: Topology, text: Callable[[int], str], count: int
) -> dict[str, list[Applied]]:
    applied: dict[str, list[Applied]] = {"first": [], "change": [], "nothing": []}
    with World.up(topology) as world:
        host = Subject(world)
        host.apply(text(1))  # imports lazily loaded modules
        for first in islice(cycle((2, 1)), count):
            applied["change"].append(host.apply(text(first)))
            applied["nothing"].append(host.apply())
        for _ in range(count):
            host.down()
            applied["first"].append(host.apply())
        host.down()
    return applied


def _two(first: int) -> str:
    gateways = ["198.51.100.1", "2001:db8:b::1"]
    return config(
        [
            {"name": "isp-a", "interface": "wan0", "rank": int(first != 1)},
            {"name": "isp-b", "interface": "wan1", "rank": int(first != 2), "gateways": gateways},
        ]
    )


def _row(uplinks: str, kind: str, applied: list[Applied]) -> tuple[str, ...]:
    totals = [one.total_ms for one in applied]
    parts = (
        median([one.prepare_ms for one in applied]),
        median([one.commit_ms for one in applied]),
        median(totals),
        quantile(totals, 0.95),
    )
    return uplinks, kind, str(applied[0].operations), *(f"{part:.1f} ms" for part in parts)

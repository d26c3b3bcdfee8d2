"""`reapply`: changed configs applied again and again under load.

Rules: the load is on the two uplinks that stay; the third is added and removed. Each apply changes
something in the kernel. Lost: no answer by the end. Misrouted: dropped by a provider's filter.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from bench.clock import log
from bench.results import Figure, Report, Table
from bench.stats import median, quantile
from bench.subject import Subject, config
from ifdefault.lab import services
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

_APPLIES = 100
_EVERY_S = 0.005
_PAUSE_S = 0.1
_STAYING = ("isp-a", "isp-b")
_HOW = f"""\
The lab's world `three`: `apply` {_APPLIES} times, each time with another config: the other uplink
becomes primary, and the third uplink is added or removed. Meanwhile, to each of the four addresses
of the two uplinks that stay: echo requests every {_EVERY_S * 1000:g} ms, new connections one after
another, and a long TCP stream whose every byte is echoed; and the same from the host to the client.
Once with source rules alone, once with wildcard UDP servers, whose packets conntrack redirects to
the primary uplink's address."""


@dataclass(frozen=True, slots=True)
class Run:
    """One series. `counts` is the load's, a row for each address."""

    name: str
    apply_ms: list[float]
    operations: list[int]
    counts: list[dict[str, Any]]
    misrouted: int

    def total(self, key: str) -> int:
        return sum(int(row[key]) for row in self.counts)

    @property
    def failed(self) -> int:
        return sum(sum(row["failed"].values()) for row in self.counts)

    @property
    def broken(self) -> int:
        return sum(bool(row["stream_broken"]) for row in self.counts)


def run() -> Report:
    runs = [
        _series("source rules", ["tcp", "http"], udp_wildcard="off"),
        _series("wildcard UDP redirected", ["tcp", "http", "udp-wildcard"], udp_wildcard="auto"),
    ]
    figures = [figure for series in runs for figure in _figures(series)]
    samples = {
        series.name: {"apply_ms": series.apply_ms, "counts": series.counts} for series in runs
    }
    return Report("Changes under load", _HOW, tuple(figures), _tables(runs), samples)


def _series(name: str, kinds: list[str], **host: object) -> Run:
    log(f"{_APPLIES} re-applies under load, {name}")
    with World.up(load("three")) as world:
        subject = Subject(world)
        services.nginx(world["host"])
        for node in ("host", "client"):
            services.builtin(world[node], http=node == "client")
        configs = _configs(**host)
        subject.apply(configs[-1])
        before = sum(world.misrouted().values())
        inward = [t.address for t in world.topology.targets() if t.provider in _STAYING]
        outward = [world.topology.addresses("client")[0], world.topology.addresses("client")[4]]
        loads = [
            _start(world, "client", inward, kinds),
            _start(world, "host", outward, ["tcp", "http"]),
        ]
        applied = []
        for text in islice(cycle(configs), _APPLIES):
            applied.append(subject.apply(text))
            time.sleep(_PAUSE_S)  # load between two changes
        counts = [row for child in loads for row in _stop(child)]
        misrouted = sum(world.misrouted().values()) - before
    times_ms = [one.total_ms for one in applied]
    return Run(name, times_ms, [one.operations for one in applied], counts, misrouted)


def _configs(**host: object) -> list[str]:
    """Four configs, each of which differs from the one before."""
    configs = []
    for first, third in (("isp-b", True), ("isp-a", False), ("isp-b", False), ("isp-a", True)):
        uplinks: list[dict[str, object]] = [
            {"name": name, "interface": dev, "rank": int(name != first), "weight": 1 + third}
            for name, dev in zip(_STAYING, ("wan0", "wan1"), strict=True)
        ]
        if third:
            gateways = ["192.0.2.1", "2001:db8:c::1"]
            uplinks.append({"name": "isp-c", "interface": "wan2", "rank": 2, "gateways": gateways})
        configs.append(config(uplinks, **host))
    return configs


def _start(world: World, node: str, targets: list[str], kinds: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.load", *targets, f"--every={_EVERY_S}"]
    command += [f"--kind={kind}" for kind in kinds]
    child = world[node].popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise HostError("the load didn't start")
    return child


def _stop(child: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = child.communicate(timeout=60)
    counts: list[dict[str, Any]] = json.loads(output)
    return counts


def _figures(series: Run) -> list[Figure]:
    of = f"{series.name}: "
    return [
        Figure(f"{of}applies that changed something", sum(map(bool, series.operations))),
        Figure(f"{of}packets lost", series.total("echoes_lost"), target=0),
        Figure(f"{of}connections failed", series.failed, target=0),
        Figure(f"{of}long streams broken", series.broken, target=0),
        Figure(f"{of}packets misrouted", series.misrouted, target=0),
        Figure(f"{of}apply under load, median", median(series.apply_ms), "ms"),
        Figure(f"{of}apply under load, p95", quantile(series.apply_ms, 0.95), "ms"),
    ]


def _tables(runs: list[Run]) -> tuple[Table, ...]:
    heads = ("", "address", "connections", "failed", "echoes", "lost", "streamed")
    rows = tuple(
        (
            series.name,
            row["target"],
            f"{row['connections']:,}",
            ", ".join(f"{n} {what}" for what, n in row["failed"].items()) or "0",
            f"{row['echoes']:,}",
            str(row["echoes_lost"]),
            row["stream_broken"] or f"{row['stream_bytes'] / 1e6:.1f} MB",
        )
        for series in runs
        for row in series.counts
    )
    return (Table("By address; the last two of each series are from the host", heads, rows),)

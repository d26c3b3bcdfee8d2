"""`idle`: what the daemon costs while nothing happens.

Rules: processor time and memory are from /proc, for the engine and its descendants. Nothing else
runs in the world, and no other bench.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.clock import log
from bench.daemon import Daemon
from bench.results import Figure, Report, Table
from bench.subject import config
from ifdefault.lab.topology import Topology, extend, parse
from ifdefault.lab.world import World
from ifdefault.plan.numbers import UPLINKS_MAX

_CALM_S = 15.0  # after the start
_SPAN_S = 60.0
_HOW = f"""\
The lab's Internet with 4 and 31 providers, each an uplink with IPv4 and IPv6; `ifdefault run` with
default settings, measured for {_SPAN_S:g} s, from {_CALM_S:g} s after every path is up. *Processor*
is the time of engine and frontend, in user and kernel mode, as a share of one core; beside them
runs `ifdefault monitor`, which has figures of its own. *Probes* are counted where they are
answered. *Resident* memory counts shared libraries twice, *proportional* (PSS) once."""


@dataclass(frozen=True, slots=True)
class Measured:
    """For a number of uplinks: the costs, and how many probes a path sends per second."""

    costs: list[Cost]
    probes_per_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one process."""

    name: str
    processor_ratio: float
    rss_mib: float
    pss_mib: float


def topology(uplinks: int) -> Topology:
    """A host with so many providers.

    client ── core ── isp-1 … isp-N ── up1 … upN host    100.64.N.0/24, 2001:db8:100+N::/48
    """
    numbers = range(1, uplinks + 1)
    providers = {
        f"isp-{n}": {
            "number": n,
            "prefixes": [f"100.64.{n}.0/24", f"2001:db8:{256 + n:x}::/48"],
            "gateways": [f"100.64.{n}.1/24", f"2001:db8:{256 + n:x}::1/48"],
        }
        for n in numbers
    }
    addresses = {f"up{n}": [f"100.64.{n}.10/24", f"2001:db8:{256 + n:x}::10/48"] for n in numbers}
    routes = [
        route
        for n in numbers
        for route in (
            f"-4 default via 100.64.{n}.1 metric {100 + n}",
            f"-6 default via 2001:db8:{256 + n:x}::1 metric {100 + n}",
        )
    ]
    return parse(
        extend(
            {
                "extends": "_internet",
                "name": f"idle-{uplinks}",
                "title": f"{uplinks} providers",
                "drawing": "",
                "links": [f"isp-{n}.cust0 host.up{n}" for n in numbers],
                "providers": providers,
                "nodes": {"host": {"addresses": addresses, "routes": routes}},
            }
        )
    )


def run() -> Report:
    by_uplinks = {uplinks: _measure(uplinks) for uplinks in (4, UPLINKS_MAX)}
    figures = []
    for uplinks, targets in ((4, (1.0, 110.0)), (UPLINKS_MAX, (8.0, None))):
        *daemon, monitor = by_uplinks[uplinks].costs
        spent, rss, pss = (
            sum(getattr(cost, key) for cost in daemon)
            for key in ("processor_ratio", "rss_mib", "pss_mib")
        )
        of = f"{uplinks} uplinks: "
        figures += [
            Figure(f"{of}processor", round(spent * 100, 3), "% of a core", targets[0]),
            Figure(f"{of}resident memory", round(rss, 1), "MiB", targets[1]),
            Figure(f"{of}proportional memory", round(pss, 1), "MiB"),
            Figure(f"{of}probes of a path", by_uplinks[uplinks].probes_per_s, "per second"),
            Figure(
                f"{of}processor, monitor",
                round(monitor.processor_ratio * 100, 3),
                "% of a core",
                0.5 if uplinks == 4 else None,
            ),
            Figure(f"{of}resident memory, monitor", round(monitor.rss_mib, 1), "MiB", 40.0),
        ]
    heads = ("", "process", "processor", "resident", "proportional")
    rows = tuple(
        (
            f"{uplinks} uplinks",
            cost.name,
            f"{cost.processor_ratio:.2%}",
            f"{cost.rss_mib:.1f} MiB",
            f"{cost.pss_mib:.1f} MiB",
        )
        for uplinks, measured in by_uplinks.items()
        for cost in measured.costs
    )
    samples = {str(uplinks): asdict(measured) for uplinks, measured in by_uplinks.items()}
    table = Table("By process", heads, rows)
    return Report("Idle cost", _HOW, tuple(figures), (table,), samples)


def _measure(uplinks: int) -> Measured:
    log(f"{uplinks} uplinks")
    with World.up(topology(uplinks)) as world, tempfile.TemporaryDirectory() as folder:
        world.run_dir = Path(folder)  # the world's own is closed to the monitor's user
        world.run_dir.chmod(0o755)
        names = [(f"isp-{n}", f"up{n}") for n in range(1, uplinks + 1)]
        daemon = Daemon(world, config({"name": n, "interface": dev} for n, dev in names))
        daemon.start()
        state = ["--state-dir", str(world.run_dir / "state")]
        monitor = world["host"].popen([*world.command, *state, "monitor"])
        time.sleep(_CALM_S)
        pids = [*daemon.pids(), monitor.pid]
        before, start_s = [_ticks(pid) for pid in pids], time.monotonic()
        received = _echo_requests(world)
        time.sleep(_SPAN_S)
        span_s, after = time.monotonic() - start_s, [_ticks(pid) for pid in pids]
        probes = (_echo_requests(world) - received) / span_s / (2 * uplinks)
        per_s = os.sysconf("SC_CLK_TCK")
        costs = [
            Cost(_name(pid), (now - then) / per_s / span_s, *_memory_mib(pid))
            for pid, then, now in zip(pids, before, after, strict=True)
        ]
        return Measured(costs, probes)


def _echo_requests(world: World) -> int:
    """How many echo requests the core has received; it answers for the targets."""

    def read() -> int:
        four = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        heads, values = (line.split() for line in four if line.startswith("Icmp:"))
        six = dict(
            line.split() for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines()
        )
        return int(values[heads.index("InEchos")]) + int(six["Icmp6InEchos"])

    return world["core"].python(read)


def _ticks(pid: int) -> int:
    """Processor time, including reaped children (hooks)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def _memory_mib(pid: int) -> tuple[float, float]:
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        sizes[key] = int(value.split()[0]) / 1024
    return sizes["Rss"], sizes["Pss"]


def _name(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    names = (name for name in ("frontend", "monitor") if any(name in word for word in command))
    return next(names, "engine")

"""`throughput`: the cost of each mechanism, compared with the same host single-homed without it.

Rules: in each round every case runs once, in random order, and is compared with the plain host in
the same round, which runs twice. There are two equal worlds: the plain host must never have had a
policy rule, because a kernel that once had one looks up routes more slowly from then on (IPv4
splits its local and main tables). The plain host's only default route is through isp-a.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.clock import log
from bench.peers_mwan3 import mwan3_rules
from bench.results import Figure, Report, Table
from bench.stats import median, paired, quantile, uncertainty
from bench.subject import Subject, config
from ifdefault.lab import ports, services
from ifdefault.lab.node import Node
from ifdefault.lab.serve import open_udp
from ifdefault.lab.topology import load
from ifdefault.lab.traffic import measure
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

TARGET_RATIO = 0.98
BLOCKS, ROUNDS = 5, 8
_EVERY = 4  # all cases are measured in each such round, in the others only _OFTEN
_CONNECTIONS_S = 1
_STREAM_S = 1
_PLAIN = ("plain", "plain, again")
_HOW = f"""\
The lab's world `two`: client, Internet, two providers and the host with nginx (2 workers), all on
the same cores. *Plain* is a host that never had a rule of ours; the other cases are set up by
`ifdefault apply` in a second world, and removed by `down`. *Connections per second*: wrk for
{_CONNECTIONS_S} s, 2 threads, 64 connections at a time, one request each (`Connection: close`).
*Throughput*: iperf3, one TCP stream from the host to the client for {_STREAM_S} s. *Processor time
per connection*: of client, server and kernel; disturbed least by other work, lower is better. A
*ratio* compares a case with the mean of the two runs of the plain host in the same round; `plain,
again` shows the noise. IPv4, to isp-a's address unless noted.

The pair of worlds is built {BLOCKS} times, because equal worlds differ a little. {ROUNDS} rounds in
each pair after a warm-up, in random order; the default mode and the source check are measured in
each, the other cases in every {_EVERY}th. The tables have the median ratio, its quartiles, and the
ratio of the medians over all rounds."""


@dataclass(frozen=True, slots=True)
class Sample:
    per_s: float  # connections
    cpu_us: float  # processor time a connection takes, of client, kernel and server together
    gbit_per_s: float
    unanswered: int  # of all connections


Setting = Callable[[Subject], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """`setting` configures the host for a block; `target` is the address that clients use.

    Without a setting it is the plain host.
    """

    name: str
    setting: Setting | None = None
    target: str = "203.0.113.10"


@contextmanager
def _applied(subject: Subject, **host: object) -> Iterator[None]:
    uplinks: list[dict[str, object]] = [
        {"name": "isp-a", "interface": "wan0"},
        {
            "name": "isp-b",
            "interface": "wan1",
            "rank": 1,
            "gateways": ["198.51.100.1", "2001:db8:b::1"],
        },
    ]
    subject.apply(config(uplinks, **host))
    try:
        yield
    finally:
        subject.down()


def _ours(**host: object) -> Setting:
    return lambda subject: _applied(subject, **host)


@contextmanager
def _with_wildcard_udp(subject: Subject) -> Iterator[None]:
    """The default mode on a host with a wildcard UDP server."""
    with subject.node.enter():
        sock = open_udp("0.0.0.0", ports.UDP_WILDCARD)
    with sock, _applied(subject):
        yield


@contextmanager
def _mwan3(subject: Subject) -> Iterator[None]:
    with mwan3_rules(subject.node):
        yield


CASES = (
    Case("plain"),
    Case("plain, again"),
    Case("after `down`", lambda _: nullcontext()),
    Case("default mode", _ours()),
    Case("default mode, to isp-b", _ours(), "198.51.100.10"),
    Case("source check on", _ours(source_check="drop")),
    Case("arrival marks", _ours(return_path="mark")),
    Case("conntrack marks", _ours(return_path="conntrack")),
    Case("wildcard UDP server", _with_wildcard_udp),
    Case("rules like mwan3's", _mwan3),
)
_WITH_TARGET = ("default mode",)
# the source check too: a decision record depends on it
_OFTEN = (*_PLAIN, *_WITH_TARGET, "source check on")
# what is measured (fields of Sample), its unit, and the target of its ratio
_MEASURES = {
    "per_s": ("Connections per second", "/s", TARGET_RATIO),
    "cpu_us": ("Processor time per connection", "µs", None),
    "gbit_per_s": ("Throughput", "Gbit/s", TARGET_RATIO),
}


def run() -> Report:
    samples: dict[str, list[Sample]] = {case.name: [] for case in CASES}
    rng = random.Random(1)
    for block in range(BLOCKS):
        log(f"worlds {block + 1} of {BLOCKS}")
        measure_cases(CASES, samples, rng)
    return _report(samples)


def measure_cases(
    cases: Sequence[Case], samples: dict[str, list[Sample]], rng: random.Random
) -> None:
    """Add a block's samples to those of each case."""
    with World.up(load("two")) as untouched, World.up(load("two")) as world:
        plain, host = Site(untouched), Site(world)
        host.settle()
        for number in range(ROUNDS + 1):  # the first warms up
            for case in rng.sample(cases, len(cases)):
                if (number % _EVERY or not number) and case.name not in _OFTEN:
                    continue
                sample = host.measure(case) if case.setting else plain.measure(case)
                if number:
                    samples[case.name].append(sample)


def _report(samples: dict[str, list[Sample]]) -> Report:
    tables, all_values, notes = [], {}, []
    unanswered = sum(one.unanswered for many in samples.values() for one in many)
    figures = [Figure("connections not answered, all cases", unanswered, target=0)]
    for field, (what, unit, target) in _MEASURES.items():
        values = {name: [getattr(one, field) for one in many] for name, many in samples.items()}
        ratios = _ratios(values)
        tables.append(_table(what, unit, values, ratios))
        all_values[field] = values
        if target:
            error = max(uncertainty(ratios[name]) for name in (*_WITH_TARGET, _PLAIN[1]))
            noisy = " (too noisy to decide)" if error > 1 - target else ""
            notes.append(f"{what}: the median ratios are ±{error:.3f}{noisy}.")
        for name in values:
            if name not in _PLAIN:
                own = target if name in _WITH_TARGET else None
                figure = f"{name}: {what[0].lower()}{what[1:]}, ratio to the plain host"
                figures.append(Figure(figure, median(ratios[name]), "ratio", own, at_least=True))
    title = "Connections per second and throughput"
    return Report(title, _HOW, tuple(figures), tuple(tables), all_values, tuple(notes))


class Site:
    """A world with its servers, single-homed."""

    def __init__(self, world: World) -> None:
        self.client, self.subject = world["client"], Subject(world)
        host = world["host"]
        self.server = _workers(services.nginx(host))
        null = subprocess.DEVNULL
        host.popen(["iperf3", "-s"], stdout=null, stderr=null)
        # single-homed: the config names the second gateway, no default route does
        host.ip("route del default via 198.51.100.1\n", "-4")
        host.ip("route del default via 2001:db8:b::1\n", "-6")
        self.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")

    def settle(self) -> None:
        """Check that the host answers, and shorten conntrack's timeout."""
        with _applied(self.subject, return_path="conntrack"):
            # this loaded the module; thousands of short connections must not fill its table
            self.subject.node.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", 2)
            targets = [case.target for case in CASES]
            if not all(tally.ok for tally in measure(self.client, ["http"], targets)):
                raise HostError("the host doesn't answer")

    def measure(self, case: Case) -> Sample:
        with case.setting(self.subject) if case.setting else nullcontext():
            return self._measure(case)

    def _measure(self, case: Case) -> Sample:
        command = ["wrk", "-t2", "-c64", f"-d{_CONNECTIONS_S}s", "-H", "Connection: close"]
        before_ns = _cpu_ns(self.server)
        output, client_ns = _run_timed(self.client, [*command, f"http://{case.target}/"])
        spent_ns = client_ns + _cpu_ns(self.server) - before_ns
        match = _WRK.search(output)
        if not match:
            raise HostError(f"{case.name}: wrk printed {output!r}")
        command = ["iperf3", "-c", case.target, "-R", "-J", "-t", str(_STREAM_S)]
        result = json.loads(self.client.run(command).stdout)
        speed = result["end"]["sum_received"]["bits_per_second"] / 1e9
        errors = _WRK_ERRORS.search(output)
        unanswered = sum(map(int, re.findall(r"\d+", errors[0]))) if errors else 0
        return Sample(
            float(match["rate"]), spent_ns / 1000 / int(match["requests"]), speed, unanswered
        )


def _run_timed(node: Node, command: Sequence[str]) -> tuple[str, int]:
    """Run a command; return its output, and its processor time in ns."""
    child = node.popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.stdout.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    return output, int((usage.ru_utime + usage.ru_stime) * 1e9)


def _cpu_ns(pids: Sequence[int]) -> int:
    """Processor time so far, including packet processing by the kernel meanwhile (schedstat)."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids)


def _workers(server: subprocess.Popen[str]) -> list[int]:
    """The server's workers, and the kernel's softirq threads."""
    own = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    names = ((path, path.read_text()) for path in Path("/proc").glob("[0-9]*/comm"))
    kernel = [path.parent.name for path, name in names if name.startswith("ksoftirqd/")]
    return [int(pid) for pid in (*own, *kernel)]


_WRK = re.compile(r"(?P<requests>\d+) requests in .*Requests/sec: +(?P<rate>[\d.]+)", re.DOTALL)
_WRK_ERRORS = re.compile(r"(?<=Socket errors: ).*|(?<=Non-2xx or 3xx responses: )\d+")


def _ratios(values: dict[str, list[float]]) -> dict[str, list[float]]:
    plain = [sum(pair) / 2 for pair in zip(*(values[name] for name in _PLAIN), strict=True)]
    ratios = {}
    for name, samples in values.items():
        rounds = (
            range(len(plain))
            if len(samples) == len(plain)
            else range(_EVERY - 1, len(plain), _EVERY)
        )
        ratios[name] = paired(samples, [plain[n] for n in rounds])
    # two runs of the same case: the noise
    ratios[_PLAIN[1]] = paired(values[_PLAIN[1]], values[_PLAIN[0]])
    return ratios


def _table(
    what: str, unit: str, values: dict[str, list[float]], ratios: dict[str, list[float]]
) -> Table:
    base = median(values["plain"] + values["plain, again"])
    digits = {"/s": 0, "µs": 1}.get(unit, 2)
    rows = tuple(
        (
            name,
            f"{median(samples):,.{digits}f} {unit}",
            f"{median(ratios[name]):.3f}",
            f"{quantile(ratios[name], 0.25):.3f}-{quantile(ratios[name], 0.75):.3f}",
            f"{median(samples) / base:.3f}",
        )
        for name, samples in values.items()
    )
    heads = ("", "median", "ratio, paired", "quartiles", "ratio of medians")
    return Table(what, heads, rows)

"""`throughput`: what each mechanism costs, beside the same host single-homed and unconfigured.

Rules: in each round every case runs once, in an order drawn anew, and is compared with the plain
host of its own round, which runs twice. Two equal worlds: the plain host must never have had a
policy rule, since a kernel that once had one looks routes up more slowly for good (IPv4 splits its
local and main tables and keeps them apart). The plain host has no default but through isp-a.
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

from bench.clock import say
from bench.peer import mwan3_shaped
from bench.results import Figure, Report, Table
from bench.stats import median, paired, quantile, uncertainty
from bench.subject import Subject, config
from ifdefault.lab import ports, services
from ifdefault.lab.serve import open_udp
from ifdefault.lab.topology import load
from ifdefault.lab.traffic import measure
from ifdefault.lab.world import Node, World
from ifdefault.model.errors import HostError

TARGET_RATIO = 0.98
BLOCKS, ROUNDS = 5, 8
_EVERY = 4  # rounds from one that measures all cases to the next; the others, what must hold
_CONNECTIONS_S = 1
_STREAM_S = 1
_PLAIN = ("plain", "plain, again")
_HOW = f"""\
The lab's world `two`: client, Internet, two providers and the host with nginx (2 workers), all on
the same cores. It stands twice: `plain` is a host that never had a rule of ours; all else is
measured on the other, set up by `ifdefault apply` and taken away by `down` before the next. The
pair is built anew {BLOCKS} times, since equal worlds differ a little. *Connections per second* is
wrk for {_CONNECTIONS_S} s, 2 threads, 64 connections at a time, one request each
(`Connection: close`). *Throughput* is iperf3, one TCP stream from the host to the client for
{_STREAM_S} s. *Processor time a connection* is what client, server and the kernel on their behalf
spend: the part that other work on the machine disturbs least; lower is better. {ROUNDS} rounds in
each pair of worlds, after one that doesn't count, in random order; what must hold, and the
source check, is measured in each, the other cases in every {_EVERY}th. A *ratio* compares a case
with the mean of the two runs of the plain host in the same round; the table has its median, the
quartiles, and the ratio of the medians over all rounds. IPv4, to isp-a's address unless the case
says otherwise."""


@dataclass(frozen=True, slots=True)
class Sample:
    per_s: float  # connections
    cpu_us: float  # processor time a connection takes, of client, kernel and server together
    gbit_per_s: float
    unanswered: int  # of all connections


Setting = Callable[[Subject], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """`setting` brings the host into the state to measure and back; `target` is asked.

    Without a setting it is the host that was never touched.
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
def _with_naive_udp(subject: Subject) -> Iterator[None]:
    """The default mode on a host where something listens on 0.0.0.0 by UDP."""
    with subject.node.enter():
        sock = open_udp("0.0.0.0", ports.UDP_NAIVE)
    with sock, _applied(subject):
        yield


@contextmanager
def _mwan3(subject: Subject) -> Iterator[None]:
    with mwan3_shaped(subject.node):
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
    Case("a naive UDP socket", _with_naive_udp),
    Case("shaped like mwan3", _mwan3),
)
_MUST_HOLD = ("default mode",)
# what a decision rests on is measured as often
_OFTEN = (*_PLAIN, *_MUST_HOLD, "source check on")
# what is measured (fields of Sample), its unit, and the target of its ratio
_MEASURES = {
    "per_s": ("Connections per second", "/s", TARGET_RATIO),
    "cpu_us": ("Processor time a connection", "µs", None),
    "gbit_per_s": ("Throughput", "Gbit/s", TARGET_RATIO),
}


def run() -> Report:
    samples: dict[str, list[Sample]] = {case.name: [] for case in CASES}
    chance = random.Random(1)
    for block in range(BLOCKS):
        say(f"worlds {block + 1} of {BLOCKS}")
        measure_cases(CASES, samples, chance)
    return _report(samples)


def measure_cases(
    cases: Sequence[Case], samples: dict[str, list[Sample]], chance: random.Random
) -> None:
    """Add a block's samples to those of each case."""
    with World.up(load("two")) as untouched, World.up(load("two")) as world:
        plain, host = Site(untouched), Site(world)
        host.settle()
        for number in range(ROUNDS + 1):  # the first warms up
            for case in chance.sample(cases, len(cases)):
                if (number % _EVERY or not number) and case.name not in _OFTEN:
                    continue
                sample = host.measure(case) if case.setting else plain.measure(case)
                if number:
                    samples[case.name].append(sample)


def _report(samples: dict[str, list[Sample]]) -> Report:
    tables, kept, notes = [], {}, []
    unanswered = sum(one.unanswered for many in samples.values() for one in many)
    figures = [Figure("Connections not answered, all cases", unanswered, target=0)]
    for field, (what, unit, target) in _MEASURES.items():
        found = {name: [getattr(one, field) for one in many] for name, many in samples.items()}
        ratios = _ratios(found)
        tables.append(_table(what, unit, found, ratios))
        kept[field] = found
        if target:
            certain = max(uncertainty(ratios[name]) for name in (*_MUST_HOLD, _PLAIN[1]))
            busy = ", which is too much to judge by" if certain > 1 - target else ""
            notes.append(f"{what}: the medians are certain to ±{certain:.3f}{busy}.")
        for name in found:
            if name not in _PLAIN:
                wanted = target if name in _MUST_HOLD else None
                what_of = f"{what}, {name}: ratio to the plain host"
                figures.append(
                    Figure(what_of, median(ratios[name]), "ratio", wanted, at_least=True)
                )
    title = "Connections per second and throughput"
    return Report(title, _HOW, tuple(figures), tuple(tables), kept, tuple(notes))


class Site:
    """A world with its servers, single-homed."""

    def __init__(self, world: World) -> None:
        self.client, self.subject = world["client"], Subject(world)
        host = world["host"]
        self.server = _workers(services.nginx(host))
        null = subprocess.DEVNULL
        host.popen(["iperf3", "-s"], stdout=null, stderr=null)
        # single-homed: no second default, whose gateway ifdefault's config names instead
        host.ip("route del default via 198.51.100.1\n", "-4")
        host.ip("route del default via 2001:db8:b::1\n", "-6")
        self.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")

    def settle(self) -> None:
        """See that the host answers, and give conntrack room."""
        with _applied(self.subject, return_path="conntrack"):
            # loads the module; thousands of short connections must not fill its table
            self.subject.node.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", 2)
            targets = [case.target for case in CASES]
            if not all(tally.ok for tally in measure(self.client, ["http"], targets)):
                raise HostError("the host doesn't answer, so there is nothing to measure")

    def measure(self, case: Case) -> Sample:
        with case.setting(self.subject) if case.setting else nullcontext():
            return self._measure(case)

    def _measure(self, case: Case) -> Sample:
        command = ["wrk", "-t2", "-c64", f"-d{_CONNECTIONS_S}s", "-H", "Connection: close"]
        before_ns = _cpu_ns(self.server)
        said, client_ns = _run_timed(self.client, [*command, f"http://{case.target}/"])
        spent_ns = client_ns + _cpu_ns(self.server) - before_ns
        found = _WRK.search(said)
        if not found:
            raise HostError(f"{case.name}: wrk said {said!r}")
        command = ["iperf3", "-c", case.target, "-R", "-J", "-t", str(_STREAM_S)]
        told = json.loads(self.client.run(command).stdout)
        speed = told["end"]["sum_received"]["bits_per_second"] / 1e9
        errors = _WRK_ERRORS.search(said)
        unanswered = sum(map(int, re.findall(r"\d+", errors[0]))) if errors else 0
        return Sample(
            float(found["rate"]), spent_ns / 1000 / int(found["requests"]), speed, unanswered
        )


def _run_timed(node: Node, command: Sequence[str]) -> tuple[str, int]:
    """Run a command; what it said, and its processor time in ns."""
    child = node.popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.stdout.close()
    child.returncode = os.waitstatus_to_exitcode(status)
    return said, int((usage.ru_utime + usage.ru_stime) * 1e9)


def _cpu_ns(pids: Sequence[int]) -> int:
    """Processor time so far, with what the kernel did for packets meanwhile (schedstat)."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids)


def _workers(server: subprocess.Popen[str]) -> list[int]:
    """The server's workers, and the kernel's own threads for packets that had to wait."""
    own = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    names = ((path, path.read_text()) for path in Path("/proc").glob("[0-9]*/comm"))
    kernel = [path.parent.name for path, name in names if name.startswith("ksoftirqd/")]
    return [int(pid) for pid in (*own, *kernel)]


_WRK = re.compile(r"(?P<requests>\d+) requests in .*Requests/sec: +(?P<rate>[\d.]+)", re.DOTALL)
_WRK_ERRORS = re.compile(r"(?<=Socket errors: ).*|(?<=Non-2xx or 3xx responses: )\d+")


def _ratios(found: dict[str, list[float]]) -> dict[str, list[float]]:
    plain = [sum(pair) / 2 for pair in zip(*(found[name] for name in _PLAIN), strict=True)]
    ratios = {}
    for name, samples in found.items():
        rounds = (
            range(len(plain))
            if len(samples) == len(plain)
            else range(_EVERY - 1, len(plain), _EVERY)
        )
        ratios[name] = paired(samples, [plain[n] for n in rounds])
    # how far two runs of the very same thing are apart: the noise of all the others
    ratios[_PLAIN[1]] = paired(found[_PLAIN[1]], found[_PLAIN[0]])
    return ratios


def _table(
    what: str, unit: str, found: dict[str, list[float]], ratios: dict[str, list[float]]
) -> Table:
    base = median(found["plain"] + found["plain, again"])
    digits = {"/s": 0, "µs": 1}.get(unit, 2)
    rows = tuple(
        (
            name,
            f"{median(samples):,.{digits}f} {unit}",
            f"{median(ratios[name]):.3f}",
            f"{quantile(ratios[name], 0.25):.3f}-{quantile(ratios[name], 0.75):.3f}",
            f"{median(samples) / base:.3f}",
        )
        for name, samples in found.items()
    )
    heads = ("", "median", "ratio, paired", "quartiles", "ratio of medians")
    return Table(f"{what} (`plain, again` beside `plain` is the noise)", heads, rows)

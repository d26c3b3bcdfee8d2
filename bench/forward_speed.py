"""`forward_speed`: the cost of forwarding: one service, 10,000, HAProxy and Shorewall.

Rules: one world. In each round each case of ours runs once, in random order, and is compared with
the single service in the same round, which runs twice; every few rounds the peers run too. Between
our cases only the nft table of the services changes, loaded as the daemon loads it.
"""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import lan
from bench.clock import log, times_ms
from bench.lan import WEB1, WEB2, part
from bench.peers_forward import Shorewall, haproxy
from bench.results import Figure, Report, Table
from bench.stats import median, paired, quantile, uncertainty
from bench.subject import Subject
from ifdefault.kernel import nft
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER
from ifdefault.lab import ports, services
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError
from ifdefault.model.kernel import FORWARD_TABLE

_MANY = 10_000
_FIRST_PORT = 10_001
_IPERF = 5201
_ROUNDS = 30
_EVERY = 5  # rounds from one with peers and throughput to the next
_LOADS = 5
_SPAN_S = 1
_TARGET_MS = 500
_TARGET_RATIO = 0.97
_ADDRESS = "203.0.113.10"
_CT_DELETE = 0x102  # linux/netfilter/nfnetlink_conntrack.h; without a tuple it deletes all
ONE, AGAIN, MANY = "ifdefault, 1 service", "ifdefault, 1 again", f"ifdefault, {_MANY:,} services"
PROXY, FIREWALL = "HAProxy", "Shorewall"
_OURS = (ONE, AGAIN, MANY)
_HOW = f"""\
The lab's world `lan`: client, Internet, two providers, the host, and a server behind it with nginx
(2 workers), all on the same cores. *Connections per second*: wrk for {_SPAN_S} s, 2 threads, 64
connections at a time, one request each (`Connection: close`), to isp-a's address by IPv4.
*Throughput*: iperf3, one TCP stream from the server to the client for {_SPAN_S} s. *Processor time
per request*: all time that the cores spent meanwhile, since the kernel's share belongs to no
process. A *ratio* compares a case with the mean of the two runs of the single service in the same
round; `1 again` shows the noise. *Loading* is one nft transaction; *apply* is everything from
reading the config to verifying the kernel.

Each of the {_MANY:,} services is a `[[forward]]` in both families; the measured one is in the
middle. HAProxy runs in TCP mode on the host, with ifdefault's return path, and hides the clients'
addresses. Shorewall does DNAT, with two providers of its own and `FASTACCEPT`. {_ROUNDS} rounds
after a warm-up; peers and throughput in every {_EVERY}th."""


@dataclass(frozen=True, slots=True)
class Sample:
    per_s: float
    cpu_us: float  # of all cores, per request
    unanswered: int
    gbit_per_s: float | None = None


Samples = dict[str, dict[int, Sample]]  # by case and round
_MEASURES = {
    "per_s": ("Connections per second", "/s", 0),
    "cpu_us": ("Processor time per request", "µs", 1),
    "gbit_per_s": ("Throughput", "Gbit/s", 2),
}


def run() -> Report:
    samples: Samples = {name: {} for name in (*_OURS, PROXY, FIREWALL)}
    with World.up(load("lan")) as world:
        site = Site(world)
        loading = site.loading()
        rng = random.Random(1)
        rounds = part(_ROUNDS)
        for number in range(rounds + 1):  # the first warms up
            log(f"round {number} of {rounds}")
            full = number % min(_EVERY, rounds) == 0
            for name, sample in _round(site, rng, full):
                if number:
                    samples[name][number] = sample
    return _report(samples, loading)


def _round(site: Site, rng: random.Random, full: bool) -> Iterator[tuple[str, Sample]]:
    groups: list[tuple[str, ...]] = [_OURS, (PROXY,), (FIREWALL,)]
    for group in rng.sample(groups, len(groups)) if full else [_OURS]:
        with site.setups[group[0]]():
            for name in rng.sample(group, len(group)):
                if name in _OURS:
                    site.switch(name)
                yield name, site.measure(full)


class Site:
    """The world with its servers, and the forwarders to compare."""

    def __init__(self, world: World) -> None:
        self.client, self.host, self.subject = world["client"], world["host"], Subject(world)
        services.nginx(world["web1"])
        null = subprocess.DEVNULL
        world["web1"].popen(["iperf3", "-s"], stdout=null, stderr=null)
        for name in ("client", "host", "web1"):
            world[name].sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        self.applied: int | None = _MANY  # the config in the kernel, by number of services
        self.configs = {n: lan.text(*_forwards(n)) for n in (0, 1, _MANY)}
        self.subject.apply(self.configs[_MANY])  # loads conntrack as well
        self.host.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", 2)
        self.texts = self._texts()
        self.shorewall = Shorewall(self.host, (ports.HTTP, _IPERF))
        self.setups: dict[str, Callable[[], AbstractContextManager[None]]] = {
            ONE: self._ours,
            PROXY: self._haproxy,
            FIREWALL: self._shorewall,
        }

    def _texts(self) -> dict[str, str]:
        """The nft table of the services, for each of our cases; nothing else may differ."""
        planned = {}
        for number in (1, _MANY):
            self.subject.apply(self.configs[number])
            planned[number] = self.subject.node.python(self.subject.prepare).desired
        one, many = planned[1], planned[_MANY]
        first, last = (dict(desired.tables)[FORWARD_TABLE] for desired in (one, many))
        tables = {**dict(one.tables), FORWARD_TABLE: last}
        if replace(one, tables=tuple(tables.items())) != many:
            raise HostError("the number of services changes more than their table")
        return {ONE: first, AGAIN: first, MANY: last}

    def loading(self) -> dict[str, list[float]]:
        """How long it takes to load them all, in ms."""
        log(f"loading {_MANY:,} services")
        applied = []
        for _ in range(part(_LOADS)):
            self.subject.apply(self.configs[1])
            applied.append(self.subject.apply(self.configs[_MANY]))
        text = self.texts[MANY]
        return {
            "load": self.host.python(
                lambda: times_ms(lambda: nft.load(FORWARD_TABLE, text), part(_LOADS))
            ),
            "prepare": [one.prepare_ms for one in applied],
            "commit": [one.commit_ms for one in applied],
            "apply": [one.total_ms for one in applied],
        }

    @contextmanager
    def _ours(self) -> Iterator[None]:
        self._set_up(1)
        yield

    @contextmanager
    def _haproxy(self) -> Iterator[None]:
        self._set_up(0)
        with haproxy(self.host, (ports.HTTP, _IPERF)):
            yield

    @contextmanager
    def _shorewall(self) -> Iterator[None]:
        self._set_up(None)
        with self.shorewall.up():
            yield

    def _set_up(self, number: int | None) -> None:
        """Apply the config of so many services, or none, and forget all older flows."""
        if number == self.applied:
            return
        if number is None:
            self.subject.down()
        else:
            self.subject.apply(self.configs[number])
        self.host.python(_forget_flows)
        self.applied = number

    def switch(self, name: str) -> None:
        text = self.texts[name]
        self.host.python(lambda: nft.load(FORWARD_TABLE, text))

    def measure(self, full: bool) -> Sample:
        command = ["wrk", "-t2", "-c64", f"-d{_SPAN_S}s", "-H", "Connection: close"]
        before_us = _busy_us()
        output = self.client.run([*command, f"http://{_ADDRESS}/"]).stdout
        spent_us = _busy_us() - before_us
        match, errors = _WRK.search(output), _WRK_ERRORS.search(output)
        if not match or not int(match["requests"]):
            raise HostError(f"wrk printed {output!r}")
        unanswered = sum(map(int, re.findall(r"\d+", errors[0]))) if errors else 0
        speed = self._speed() if full else None
        return Sample(float(match["rate"]), spent_us / int(match["requests"]), unanswered, speed)

    def _speed(self) -> float:
        command = ["iperf3", "-c", _ADDRESS, "-R", "-J", "-t", str(_SPAN_S)]
        output = json.loads(self.client.run(command).stdout)
        return float(output["end"]["sum_received"]["bits_per_second"]) / 1e9


def _forget_flows() -> None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.change(_CT_DELETE, struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))


def _forwards(number: int) -> Iterator[str]:
    """So many services, the measured one in the middle."""
    rest = number - 1
    for index in range(number):
        if index == rest // 2:
            yield lan.forward([f"tcp:{ports.HTTP}", f"tcp:{_IPERF}"], WEB1, check="off")
        else:
            to = (WEB1, WEB2)[index % 2]
            yield lan.forward([f"tcp:{_FIRST_PORT + index}"], to, check="off")


def _busy_us() -> float:
    """The processor time of all cores so far."""
    user, nice, system, _, _, irq, softirq = Path("/proc/stat").read_text().split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) * 1e4


_WRK = re.compile(r"(?P<requests>\d+) requests in .*Requests/sec: +(?P<rate>[\d.]+)", re.DOTALL)
_WRK_ERRORS = re.compile(r"(?<=Socket errors: ).*|(?<=Non-2xx or 3xx responses: )\d+")


# --- the report ---------------------------------------------------------------------------


def _report(samples: Samples, loading: dict[str, list[float]]) -> Report:
    figures = [
        Figure(f"loading {_MANY:,} services, median", median(loading["load"]), "ms", _TARGET_MS),
        Figure(f"`apply` of {_MANY:,} services, median", median(loading["apply"]), "ms"),
        Figure(f"`apply` of {_MANY:,} services, commit, median", median(loading["commit"]), "ms"),
        Figure(
            "connections not answered, all cases of ours",
            sum(one.unanswered for name in _OURS for one in samples[name].values()),
            target=0,
        ),
    ]
    tables, notes = [], []
    for field, (what, unit, digits) in _MEASURES.items():
        ratios = _ratios(samples, field)
        tables.append(_table(samples, field, ratios, what, unit, digits))
        for name in (MANY, PROXY, FIREWALL):
            target = _TARGET_RATIO if (name, field) == (MANY, "per_s") else None
            figure = f"{name}: {what[0].lower()}{what[1:]}, ratio to 1 service"
            figures.append(Figure(figure, median(ratios[name]), "ratio", target, at_least=True))
        if field == "per_s":
            error = uncertainty(ratios[MANY])
            noisy = " (too noisy to decide)" if error > 1 - _TARGET_RATIO else ""
            notes.append(f"{what}, {MANY}: the median ratio is ±{error:.3f}{noisy}.")
    values = {
        field: {name: _values(samples, name, field) for name in samples} for field in _MEASURES
    }
    title, all_values = "Cost of forwarding", {**values, "loading_ms": loading}
    return Report(title, _HOW, tuple(figures), tuple(tables), all_values, tuple(notes))


def _values(samples: Samples, name: str, field: str) -> dict[int, float]:
    """By round, where it was measured."""
    values = {number: getattr(sample, field) for number, sample in samples[name].items()}
    return {number: value for number, value in values.items() if value is not None}


def _ratios(samples: Samples, field: str) -> dict[str, list[float]]:
    one, again = (_values(samples, name, field) for name in (ONE, AGAIN))
    base = {number: (one[number] + again[number]) / 2 for number in one}
    ratios = {}
    for name in samples:
        values = _values(samples, name, field)
        ratios[name] = paired(list(values.values()), [base[number] for number in values])
    # two runs of the same case: the noise
    ratios[AGAIN] = paired(list(again.values()), [one[number] for number in again])
    return ratios


def _table(
    samples: Samples,
    field: str,
    ratios: dict[str, list[float]],
    what: str,
    unit: str,
    digits: int,
) -> Table:
    rows = tuple(
        (
            name,
            f"{median(list(_values(samples, name, field).values())):,.{digits}f} {unit}",
            f"{median(ratios[name]):.3f}",
            f"{quantile(ratios[name], 0.25):.3f}-{quantile(ratios[name], 0.75):.3f}",
        )
        for name in samples
    )
    return Table(what, ("", "median", "ratio, paired", "quartiles"), rows)

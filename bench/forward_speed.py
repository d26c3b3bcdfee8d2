"""`forward_speed`: what forwarding costs: one service, 10,000, HAProxy and Shorewall.

Rules: one world. In each round each case of ours runs once, in an order drawn anew, and is compared
with the single service of its own round, which runs twice; every few rounds the peers run too.
Between our cases nothing changes but the table of the services, loaded as the daemon loads it.
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

from bench import behind
from bench.behind import WEB1, WEB2, part
from bench.clock import say, times_ms
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
_CT_DELETE = 0x102  # linux/netfilter/nfnetlink_conntrack.h; without a tuple: all
ONE, AGAIN, MANY = "ifdefault, 1 service", "ifdefault, 1 again", f"ifdefault, {_MANY:,} services"
PROXY, FIREWALL = "HAProxy", "Shorewall"
_OURS = (ONE, AGAIN, MANY)
_HOW = f"""\
The lab's world `lan`: client, Internet, two providers, the host that forwards, and the content
server with nginx (2 workers), all on the same cores. *Connections per second* is wrk for {_SPAN_S}
s, 2 threads, 64 connections at a time, one request each (`Connection: close`), to isp-a's address
by IPv4. *Throughput* is iperf3, one TCP stream from the content server to the client for {_SPAN_S}
s. *Processor time a request* is what all cores spent meanwhile, for whatever, by request: most of
the work is the kernel's and belongs to no process. The {_MANY:,} services are a `[[forward]]` each,
every one in both families, and the one that is measured stands among them. HAProxy runs in TCP
mode on the host, whose way back is ifdefault's, and hides the clients' addresses; Shorewall does
the same by DNAT, with two providers of its own, and `FASTACCEPT`. {_ROUNDS} rounds after one that
doesn't count, peers and throughput in every {_EVERY}th. A *ratio* compares a case with the mean of
the two runs of the single service in the same round; `1 again` beside `1` is the noise.
*Loading* is one transaction of nft; *apply* is the whole of it, from reading the config to
verifying the kernel."""


@dataclass(frozen=True, slots=True)
class Sample:
    per_s: float
    cpu_us: float  # of all cores, a request
    unanswered: int
    gbit_per_s: float | None = None


Samples = dict[str, dict[int, Sample]]  # by case and round
_MEASURES = {
    "per_s": ("Connections per second", "/s", 0),
    "cpu_us": ("Processor time a request", "µs", 1),
    "gbit_per_s": ("Throughput", "Gbit/s", 2),
}


def run() -> Report:
    samples: Samples = {name: {} for name in (*_OURS, PROXY, FIREWALL)}
    with World.up(load("lan")) as world:
        site = Site(world)
        loading = site.loading()
        chance = random.Random(1)
        rounds = part(_ROUNDS)
        for number in range(rounds + 1):  # the first warms up
            say(f"round {number} of {rounds}")
            full = number % min(_EVERY, rounds) == 0
            for name, sample in _round(site, chance, full):
                if number:
                    samples[name][number] = sample
    return _report(samples, loading)


def _round(site: Site, chance: random.Random, full: bool) -> Iterator[tuple[str, Sample]]:
    groups: list[tuple[str, ...]] = [_OURS, (PROXY,), (FIREWALL,)]
    for group in chance.sample(groups, len(groups)) if full else [_OURS]:
        with site.lays[group[0]]():
            for name in chance.sample(group, len(group)):
                if name in _OURS:
                    site.switch(name)
                yield name, site.measure(full)


class Site:
    """The world with its servers, and the ways to forward."""

    def __init__(self, world: World) -> None:
        self.client, self.host, self.subject = world["client"], world["host"], Subject(world)
        services.nginx(world["web1"])
        null = subprocess.DEVNULL
        world["web1"].popen(["iperf3", "-s"], stdout=null, stderr=null)
        for name in ("client", "host", "web1"):
            world[name].sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        self.laid: int | None = _MANY  # which of the configs stands
        self.configs = {n: behind.text(*_forwards(n)) for n in (0, 1, _MANY)}
        self.subject.apply(self.configs[_MANY])  # loads conntrack as well
        self.host.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", 2)
        self.texts = self._texts()
        self.shorewall = Shorewall(self.host, (ports.HTTP, _IPERF))
        self.lays: dict[str, Callable[[], AbstractContextManager[None]]] = {
            ONE: self._ours,
            PROXY: self._haproxy,
            FIREWALL: self._shorewall,
        }

    def _texts(self) -> dict[str, str]:
        """The table of the services, of each of our cases; nothing else may differ."""
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
        say(f"loading {_MANY:,} services")
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
        self._lay(1)
        yield

    @contextmanager
    def _haproxy(self) -> Iterator[None]:
        self._lay(0)
        with haproxy(self.host, (ports.HTTP, _IPERF)):
            yield

    @contextmanager
    def _shorewall(self) -> Iterator[None]:
        self._lay(None)
        with self.shorewall.up():
            yield

    def _lay(self, number: int | None) -> None:
        """Have the config of so many services stand, or none, and no flow that it didn't see."""
        if number == self.laid:
            return
        if number is None:
            self.subject.down()
        else:
            self.subject.apply(self.configs[number])
        self.host.python(_forget_flows)
        self.laid = number

    def switch(self, name: str) -> None:
        text = self.texts[name]
        self.host.python(lambda: nft.load(FORWARD_TABLE, text))

    def measure(self, full: bool) -> Sample:
        command = ["wrk", "-t2", "-c64", f"-d{_SPAN_S}s", "-H", "Connection: close"]
        before_us = _busy_us()
        said = self.client.run([*command, f"http://{_ADDRESS}/"]).stdout
        spent_us = _busy_us() - before_us
        found, errors = _WRK.search(said), _WRK_ERRORS.search(said)
        if not found or not int(found["requests"]):
            raise HostError(f"wrk said {said!r}")
        unanswered = sum(map(int, re.findall(r"\d+", errors[0]))) if errors else 0
        speed = self._speed() if full else None
        return Sample(float(found["rate"]), spent_us / int(found["requests"]), unanswered, speed)

    def _speed(self) -> float:
        command = ["iperf3", "-c", _ADDRESS, "-R", "-J", "-t", str(_SPAN_S)]
        told = json.loads(self.client.run(command).stdout)
        return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def _forget_flows() -> None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.change(_CT_DELETE, struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))


def _forwards(number: int) -> Iterator[str]:
    """So many services; the first is the one that is measured, and in the middle of them."""
    rest = number - 1
    for place in range(number):
        if place == rest // 2:
            yield behind.forward([f"tcp:{ports.HTTP}", f"tcp:{_IPERF}"], WEB1, check="off")
        else:
            to = (WEB1, WEB2)[place % 2]
            yield behind.forward([f"tcp:{_FIRST_PORT + place}"], to, check="off")


def _busy_us() -> float:
    """What all cores have spent so far, on anything."""
    user, nice, system, _, _, irq, softirq = Path("/proc/stat").read_text().split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) * 1e4


_WRK = re.compile(r"(?P<requests>\d+) requests in .*Requests/sec: +(?P<rate>[\d.]+)", re.DOTALL)
_WRK_ERRORS = re.compile(r"(?<=Socket errors: ).*|(?<=Non-2xx or 3xx responses: )\d+")


# --- what was found -----------------------------------------------------------------------


def _report(samples: Samples, loading: dict[str, list[float]]) -> Report:
    figures = [
        Figure(f"Loading {_MANY:,} services, median", median(loading["load"]), "ms", _TARGET_MS),
        Figure(f"`apply` of {_MANY:,} services, whole, median", median(loading["apply"]), "ms"),
        Figure(f"`apply` of {_MANY:,} services, commit, median", median(loading["commit"]), "ms"),
        Figure(
            "Connections not answered, all cases of ours",
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
            what_of = f"{what}, {name}: ratio to 1 service"
            figures.append(Figure(what_of, median(ratios[name]), "ratio", target, at_least=True))
        if field == "per_s":
            certain = uncertainty(ratios[MANY])
            busy = ", which is too much to judge by" if certain > 1 - _TARGET_RATIO else ""
            notes.append(f"{what}, {MANY}: the median ratio is certain to ±{certain:.3f}{busy}.")
    kept = {field: {name: _values(samples, name, field) for name in samples} for field in _MEASURES}
    title = "What forwarding costs"
    return Report(
        title, _HOW, tuple(figures), tuple(tables), {**kept, "loading_ms": loading}, tuple(notes)
    )


def _values(samples: Samples, name: str, field: str) -> dict[int, float]:
    """By round, where it was measured."""
    found = {number: getattr(one, field) for number, one in samples[name].items()}
    return {number: value for number, value in found.items() if value is not None}


def _ratios(samples: Samples, field: str) -> dict[str, list[float]]:
    one, again = (_values(samples, name, field) for name in (ONE, AGAIN))
    base = {number: (one[number] + again[number]) / 2 for number in one}
    ratios = {}
    for name in samples:
        values = _values(samples, name, field)
        ratios[name] = paired(list(values.values()), [base[number] for number in values])
    # how far two runs of the very same thing are apart: the noise of all the others
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
    return Table(f"{what}:", ("", "median", "ratio, paired", "quartiles"), rows)

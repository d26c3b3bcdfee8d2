"""The cost of MPTCP: connections per second and throughput beside TCP, on one host.

Rules: in each round every case runs once, in random order, and is compared with the mean of two
runs of TCP in the same round.
"""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench.clock import log
from bench.lan import part
from bench.mptcp_site import TCP_PORT, Site, mptcpized
from bench.results import Figure, Table
from bench.stats import median, paired, quantile
from ifdefault.lab import ports, services
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

_ROUNDS, _SPAN_S, _MBIT = 8, 1, 1000
_ADDRESS = "203.0.113.10"
_DEVS = ("wan0", "wan1")
_IPERF, _TCP_IPERF = 5201, 5202
HOW = f"""

*Cost*: {_ROUNDS} rounds after a warm-up, client and server on the same cores. *Connections per
second*: wrk for {_SPAN_S} s, 64 at a time, one request each (`Connection: close`), to nginx.
*Throughput*: iperf3, one stream from the host to the client for {_SPAN_S} s, over uplinks of
{_MBIT:,} Mbit/s each (tbf), and with no limit but the memory of the machine. Both speak MPTCP by
`mptcpize`. A *ratio* compares with the mean of the two runs of TCP in the same round; `TCP, again`
shows the noise. *TCP clients of an MPTCP server* don't ask for MPTCP."""


@dataclass(frozen=True, slots=True)
class Case:
    """`accepted`: how many announced addresses the client accepts."""

    name: str
    http: int = ports.HTTP
    iperf: int = _IPERF
    mptcp: bool = True
    accepted: int = 0


TCP, AGAIN = "TCP", "TCP, again"
CASES = (
    Case(TCP, TCP_PORT, _TCP_IPERF, mptcp=False),
    Case(AGAIN, TCP_PORT, _TCP_IPERF, mptcp=False),
    Case("TCP clients of an MPTCP server", mptcp=False),
    Case("MPTCP, one subflow"),
    Case("MPTCP, two subflows", accepted=8),
)
PER_S, SHAPED, UNLIMITED = (
    "connections per second",
    f"throughput at {_MBIT:,} Mbit/s",
    "throughput without a limit",
)
_MEASURES = ((PER_S, "/s", 0), (SHAPED, "Gbit/s", 2), (UNLIMITED, "Gbit/s", 2))


@dataclass(frozen=True, slots=True)
class Cost:
    """By measure and case, a value for each round."""

    values: Mapping[str, Mapping[str, Sequence[float]]]

    def _ratios(self, measure: str, case: str) -> list[float]:
        values = self.values[measure]
        if case == AGAIN:  # two runs of the same: the noise
            return paired(values[AGAIN], values[TCP])
        base = [sum(pair) / 2 for pair in zip(values[TCP], values[AGAIN], strict=True)]
        return paired(values[case], base)

    def figures(self) -> Iterator[Figure]:
        for case in CASES[2:]:
            for measure, _, _ in _MEASURES:
                ratio = median(self._ratios(measure, case.name))
                yield Figure(f"{case.name}, {measure}, ratio to TCP", ratio, "ratio")

    def tables(self) -> Iterator[Table]:
        heads = ("", "median", "ratio, paired", "quartiles")
        for measure, unit, digits in _MEASURES:
            rows = []
            for case, values in self.values[measure].items():
                ratios = self._ratios(measure, case)
                low, high = (quantile(ratios, share) for share in (0.25, 0.75))
                middle = f"{median(values):,.{digits}f} {unit}"
                rows.append((case, middle, f"{median(ratios):.3f}", f"{low:.3f}-{high:.3f}"))
            yield Table(f"Cost: {measure}", heads, tuple(rows))


def measure() -> Cost:
    values: dict[str, dict[str, list[float]]] = {
        measure: {case.name: [] for case in CASES} for measure, _, _ in _MEASURES
    }
    with World.up(load("two")) as world:
        site = Site(world, last_s=1)
        site.announce()
        site.add_tcp_server()
        _start_iperf(site)
        site.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        rounds = part(_ROUNDS)
        for number in range(rounds + 1):  # the first warms up
            log(f"cost, round {number} of {rounds}")
            for case in random.sample(CASES, len(CASES)):
                site.accept(case.accepted)
                found = {PER_S: _connect(site, case), UNLIMITED: _stream(site, case)}
                with _shaped(site):
                    found[SHAPED] = _stream(site, case)
                for measure, value in found.items() if number else ():
                    values[measure][case.name].append(value)
    return Cost(values)


@contextmanager
def _shaped(site: Site) -> Iterator[None]:
    """Uplinks of _MBIT each for a block."""
    shape = ["root", "tbf", "rate", f"{_MBIT}mbit", "burst", "128k", "latency", "50ms"]
    for dev in _DEVS:
        site.host.run(["tc", "qdisc", "add", "dev", dev, *shape])
    try:
        yield
    finally:
        for dev in _DEVS:
            site.host.run(["tc", "qdisc", "del", "dev", dev, "root"])


def _start_iperf(site: Site) -> None:
    for port, command in (
        (_IPERF, mptcpized(["iperf3", "-s", "-p", str(_IPERF)])),
        (_TCP_IPERF, ["iperf3", "-s", "-p", str(_TCP_IPERF)]),
    ):
        name = f"iperf3-{port}"
        child = services.start(site.host, name, command)
        services.answering(site.host, name, child, socket.SOCK_STREAM, port)


def _connect(site: Site, case: Case) -> float:
    command = ["wrk", "-t2", "-c64", f"-d{_SPAN_S}s", "-H", "Connection: close"]
    output = _run(site, case, [*command, f"http://{_ADDRESS}:{case.http}/"])
    match = re.search(r"Requests/sec: +([\d.]+)", output)
    if not match or "Non-2xx" in output:
        raise HostError(f"{case.name}: wrk printed {output!r}")
    return float(match[1])


def _stream(site: Site, case: Case) -> float:
    command = ["iperf3", "-c", _ADDRESS, "-p", str(case.iperf), "-R", "-J", "-t", str(_SPAN_S)]
    result = json.loads(_run(site, case, command))
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9


def _run(site: Site, case: Case, command: list[str]) -> str:
    return site.client.run(mptcpized(command) if case.mptcp else command).stdout

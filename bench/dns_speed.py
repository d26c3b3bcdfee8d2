"""`dns_speed`: answers per second of authoritative servers, and our probes meanwhile.

Rules: in each round every server gets each kind of query once, in random order, and is compared
with BIND in the same round. All serve the same zone, on the same cores as dnsperf.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from bench import peers_dns
from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.results import Figure, Report, Table
from bench.stats import median, paired, quantile
from ifdefault.lab.node import Node
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

ROUNDS = 9
_RUN_S = 2
_NAMES = 20
_JITTER_S = 30
_ADDRESS = "203.0.113.10"
_PORTS = {"ifdefault": 53, "BIND": 5301, "Knot": 5302, "gdnsd": 5303}
_CLIENT_COOKIE = "0123456789abcdef"
# by name: dnsperf's options; "COOKIE" is replaced by a full cookie that the server gave before
KINDS = {
    "plain": (),
    "EDNS": ("-e",),
    "client cookie": ("-E", f"10:{_CLIENT_COOKIE}"),
    "full cookie": ("-E", "10:COOKIE"),
}
_COOKIELESS = ("plain", "EDNS")
_QUIET_S = 0.5  # between probes of a path that is up
_HOW = f"""\
The lab's world `two`: the host runs `ifdefault run` with a zone of {_NAMES} names, an A and an AAAA
record of each uplink, and BIND, Knot and gdnsd with the same records and default settings, each on
its own port. dnsperf, on the host too, queries one server at a time over the loopback device for
{_RUN_S} s, with 100 queries outstanding, A and AAAA of all names in turn. {ROUNDS} rounds after a
warm-up, in random order; a *ratio* compares with BIND in the same round. *EDNS*: with an OPT
record. *Client cookie*: the server adds its own half (RFC 7873; Knot returns only that, BADCOOKIE).
*Full cookie*: the server verifies it. `rate_limit` is 0, because all queries come from one address.

*Jitter*: how far the gaps between our probes are from {_QUIET_S * 1000:g} ms, by the kernel's
time stamps on arrival, for {_JITTER_S} s without queries and {_JITTER_S} s with dnsperf at full
speed. Both uplinks, both families."""


@dataclass(frozen=True, slots=True)
class Run:
    per_s: float
    lost: int


@dataclass(frozen=True, slots=True)
class Probes:
    """Our probes meanwhile. `off_ms`: the deviation of each gap."""

    off_ms: list[float]
    rtt_ms: list[float]  # by path, from the daemon's status
    states: list[str]


Samples = dict[str, dict[str, list[Run]]]  # by kind and server


def run() -> Report:
    samples: Samples = {kind: {server: [] for server in _PORTS} for kind in KINDS}
    with World.up(load("two")) as world:
        host = world["host"]
        daemon = Daemon(world, config())
        daemon.start()
        start_peers(world)
        questions = world.dir / "questions"
        questions.write_text(
            "".join(f"{name} {kind}\n" for name in names() for kind in ("A", "AAAA"))
        )
        settings = [(kind, server) for kind in KINDS for server in _PORTS]
        rng = random.Random(1)
        for number in range(ROUNDS + 1):
            log(f"round {number} of {ROUNDS}")
            for kind, server in rng.sample(settings, len(settings)):
                result = ask(host, questions, kind, server)
                if number:
                    samples[kind][server].append(result)
        log("jitter")
        idle = watch_probes(world, daemon, lambda: time.sleep(_JITTER_S))
        busy = watch_probes(
            world, daemon, lambda: dnsperf(host, questions, "ifdefault", (), _JITTER_S)
        )
    return _report(samples, idle, busy)


def names() -> list[str]:
    return [ZONE, *(f"n{number}.{ZONE}" for number in range(1, _NAMES))]


def config() -> str:
    tables = "".join(f'[[dns.name]]\nname = "{name}"\nttl = 30\n' for name in names())
    return f'{two_uplinks()}\n{tables}\n[dns.server]\nzones = ["{ZONE}"]\nrate_limit = 0\n'


def start_peers(world: World) -> None:
    """The other servers, with the same records."""
    host = world["host"]
    addresses = [target.address for target in world.topology.targets()]
    lines = [
        f"{'@' if name == ZONE else name.partition('.')[0]} 30"
        f" {'AAAA' if ':' in address else 'A'} {address}\n"
        for name in names()
        for address in addresses
    ]
    zone = peers_dns.apex(30) + "".join(lines)
    zone_file = f"$ORIGIN {ZONE}.\n{zone}"
    peers_dns.bind(host, [_ADDRESS], _PORTS["BIND"], zone_file, '{ type primary; file "zone"; }')
    module = "mod-cookies:\n  - id: default\n"
    peers_dns.knot(
        host, [_ADDRESS], _PORTS["Knot"], zone_file, module, "    module: mod-cookies/default\n"
    )
    peers_dns.gdnsd(host, [_ADDRESS], _PORTS["gdnsd"], zone)


# --- dnsperf --------------------------------------------------------------------------------


def ask(host: Node, questions: Path, kind: str, server: str) -> Run:
    options = [
        option.replace("COOKIE", cookie_of(host, _PORTS[server])) if "COOKIE" in option else option
        for option in KINDS[kind]
    ]
    return dnsperf(host, questions, server, options, _RUN_S)


_COMPLETED = re.compile(r"Queries per second: +([\d.]+)")
_LOST = re.compile(r"Queries lost: +(\d+)")
# Knot answers half a cookie with BADCOOKIE, whose lower four bits are YXRRSET's
_GOOD = re.compile(r"(?:NOERROR|YXRRSET) \d+ \(100\.00%\)")


def dnsperf(host: Node, questions: Path, server: str, options: Sequence[str], seconds: int) -> Run:
    """Query one server as fast as it answers."""
    command = ["dnsperf", "-s", _ADDRESS, "-p", str(_PORTS[server]), "-d", str(questions)]
    output = host.run([*command, "-l", str(seconds), "-q", "100", *options]).stdout
    rate, lost, good = (pattern.search(output) for pattern in (_COMPLETED, _LOST, _GOOD))
    if not (rate and lost and good):
        raise HostError(f"{server}: dnsperf printed {output!r}")
    return Run(float(rate[1]), int(lost[1]))


def cookie_of(host: Node, port: int) -> str:
    """A full cookie from a server, in hexadecimal."""
    command = ["dig", f"+cookie={_CLIENT_COOKIE}", "+norecurse", "-p", str(port)]
    output = host.run([*command, f"@{_ADDRESS}", ZONE, "A"]).stdout
    match = re.search(r"COOKIE: ([0-9a-f]{32,80})", output)
    if not match:
        raise HostError(f"port {port} gave no cookie: {output}")
    return match[1]


# --- probes ---------------------------------------------------------------------------------


def watch_probes(world: World, daemon: Daemon, meanwhile: Callable[[], object]) -> Probes:
    """The probes that arrive at the core during `meanwhile`."""
    command = [sys.executable, "-m", "bench.dns_speed"]
    child = world["core"].popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise HostError("the observer of probes didn't start")
    meanwhile()
    output, _ = child.communicate(timeout=60)
    health = daemon.status().health
    off_ms = [
        abs(later - earlier - _QUIET_S) * 1000
        for times in json.loads(output).values()
        for earlier, later in pairwise(times)
    ]
    rtt_ms = [float(path.rtt_ms) for path in health]
    return Probes(off_ms, rtt_ms, sorted({str(path.state) for path in health}))


_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
_REQUEST = {socket.AF_INET: (socket.IPPROTO_ICMP, 20, 8), socket.AF_INET6: (58, 0, 128)}


def capture() -> None:
    """Print when echo requests arrived, by sender; ends with standard input."""
    arrivals: dict[str, list[float]] = {}
    socks = {}
    for family, (protocol, header, request) in _REQUEST.items():
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        socks[sock] = (header, request)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([sys.stdin, *socks], [], [])
        if sys.stdin in ready:
            break
        for sock in socks.keys() & set(ready):
            data, ancillary, _, peer = sock.recvmsg(2048, 256)
            header, request = socks[sock]
            if data[header] == request:
                seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
                arrivals.setdefault(peer[0], []).append(seconds + nanoseconds / 1e9)
    print(json.dumps(arrivals))


# --- the report -----------------------------------------------------------------------------


def _report(samples: Samples, idle: Probes, busy: Probes) -> Report:
    all_samples = {
        "runs": {
            kind: {server: list(map(asdict, runs)) for server, runs in by_server.items()}
            for kind, by_server in samples.items()
        },
        "probes": {"idle": asdict(idle), "busy": asdict(busy)},
    }
    heads = ("query", "server", "answers per second", "quartiles", "ratio to BIND", "lost")
    probe_heads = ("", "probes", "jitter, median", "p99", "longest", "round trip, median of paths")
    tables = (
        Table("Answers per second", heads, tuple(_rows(samples))),
        Table(
            "Our probes",
            probe_heads,
            tuple(
                (
                    what,
                    str(len(probes.off_ms)),
                    *(f"{quantile(probes.off_ms, part):.2f} ms" for part in (0.5, 0.99, 1.0)),
                    f"{median(probes.rtt_ms):.2f} ms",
                )
                for what, probes in (("no queries", idle), ("full query load", busy))
            ),
        ),
    )
    figures = (*_speeds(samples), *_jitters(idle, busy))
    return Report("DNS answers per second", _HOW, figures, tables, all_samples)


def _ratios(by_server: dict[str, list[Run]], server: str) -> list[float]:
    rates = {name: [run.per_s for run in runs] for name, runs in by_server.items()}
    return paired(rates[server], rates["BIND"])


def _speeds(samples: Samples) -> Iterator[Figure]:
    for kind, by_server in samples.items():
        for server, runs in by_server.items():
            rate = median([run.per_s for run in runs])
            yield Figure(f"{kind}: {server}, answers per second", rate, "/s")
        ratio = median(_ratios(by_server, "ifdefault"))
        target = 1.0 if kind in _COOKIELESS else None
        yield Figure(f"{kind}: ifdefault's ratio to BIND", ratio, "ratio", target, at_least=True)


def _jitters(idle: Probes, busy: Probes) -> Iterator[Figure]:
    for what, probes, target in (("no queries", idle, None), ("full query load", busy, 20)):
        yield Figure(f"probes, {what}: jitter, p99", quantile(probes.off_ms, 0.99), "ms", target)
        yield Figure(f"probes, {what}: jitter, longest", max(probes.off_ms), "ms")
    yield Figure(
        "paths not up after full query load", sum(s != "up" for s in busy.states), target=0
    )


def _rows(samples: Samples) -> Iterator[tuple[str, ...]]:
    for kind, by_server in samples.items():
        for server, runs in by_server.items():
            rates = [run.per_s for run in runs]
            low, high = quantile(rates, 0.25), quantile(rates, 0.75)
            ratio = median(_ratios(by_server, server))
            yield (
                kind,
                server,
                f"{median(rates):,.0f}",
                f"{low:,.0f}-{high:,.0f}",
                f"{ratio:.2f}",
                str(sum(run.lost for run in runs)),
            )


if __name__ == "__main__":
    capture()

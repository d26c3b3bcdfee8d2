"""`dns_speed`: answers per second of authoritative servers, and our probes meanwhile.

Rules: in each round every server is asked each kind of question once, in an order drawn anew, and
is compared with BIND in its own round. All serve the same zone, on the same cores as dnsperf.
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
from bench.clock import say
from bench.daemon import Daemon, two_uplinks
from bench.results import Figure, Report, Table
from bench.stats import median, paired, quantile
from ifdefault.lab.topology import ZONE, load
from ifdefault.lab.world import Node, World
from ifdefault.model.errors import HostError

ROUNDS = 9
_RUN_S = 2
_NAMES = 20
_JITTER_S = 30
_ADDRESS = "203.0.113.10"
_PORTS = {"ifdefault": 53, "BIND": 5301, "Knot": 5302, "gdnsd": 5303}
_CLIENT_COOKIE = "0123456789abcdef"
# by name: dnsperf's options; "COOKIE" stands for a whole one that the server gave before
KINDS = {
    "plain": (),
    "EDNS": ("-e",),
    "client cookie": ("-E", f"10:{_CLIENT_COOKIE}"),
    "full cookie": ("-E", "10:COOKIE"),
}
_COOKIELESS = ("plain", "EDNS")
_QUIET_S = 0.5  # a path's probes, when all is well
_HOW = f"""\
The lab's world `two`; on its host `ifdefault run` with a zone of {_NAMES} names, an A and an AAAA
record of each uplink, and BIND, Knot and gdnsd with the same records, each on a port of its own of
the same address, with its defaults, all started once and left running. dnsperf runs on the host as
well, over the loopback device, against one server at a time for {_RUN_S} s: 100 questions under
way, A and AAAA of all names in turn. {ROUNDS} rounds after one that doesn't count, in random order;
a *ratio* compares with BIND in the same round. *EDNS* is a question with an OPT record; *client
cookie* one with half a cookie, to which the server computes its own (RFC 7873; Knot gives nothing
else, BADCOOKIE); *full cookie* one with the cookie that the server gave before, which it verifies.
As all questions come from one address, our `rate_limit` is 0.

*Jitter*: how far the gaps between our probes are from the {_QUIET_S * 1000:g} ms that they should
be, by the kernel's own time stamps where they arrive, for {_JITTER_S} s while nobody asks and for
{_JITTER_S} s while dnsperf asks as fast as it gets answers. Both uplinks, both families."""


@dataclass(frozen=True, slots=True)
class Run:
    per_s: float
    lost: int


@dataclass(frozen=True, slots=True)
class Probes:
    """How those that watch the uplinks fared. `off_ms`: each gap's distance from what it should
    be."""

    off_ms: list[float]
    rtt_ms: list[float]  # by path, as the daemon tells
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
        chance = random.Random(1)
        for number in range(ROUNDS + 1):
            say(f"round {number} of {ROUNDS}")
            for kind, server in chance.sample(settings, len(settings)):
                found = ask(host, questions, kind, server)
                if number:
                    samples[kind][server].append(found)
        say("jitter")
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
    whole = f"$ORIGIN {ZONE}.\n{zone}"
    peers_dns.bind(host, [_ADDRESS], _PORTS["BIND"], whole, '{ type primary; file "zone"; }')
    module = "mod-cookies:\n  - id: default\n"
    peers_dns.knot(
        host, [_ADDRESS], _PORTS["Knot"], whole, module, "    module: mod-cookies/default\n"
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
# BADCOOKIE, as one sees it who knows four bits of it alone, is what Knot says to half a cookie
_GOOD = re.compile(r"(?:NOERROR|YXRRSET) \d+ \(100\.00%\)")


def dnsperf(host: Node, questions: Path, server: str, options: Sequence[str], seconds: int) -> Run:
    """Ask one server as fast as it answers."""
    command = ["dnsperf", "-s", _ADDRESS, "-p", str(_PORTS[server]), "-d", str(questions)]
    said = host.run([*command, "-l", str(seconds), "-q", "100", *options]).stdout
    rate, lost, good = (each.search(said) for each in (_COMPLETED, _LOST, _GOOD))
    if not (rate and lost and good):
        raise HostError(f"{server}: dnsperf said {said!r}")
    return Run(float(rate[1]), int(lost[1]))


def cookie_of(host: Node, port: int) -> str:
    """A whole cookie as a server gives it, in hexadecimal."""
    command = ["dig", f"+cookie={_CLIENT_COOKIE}", "+norecurse", "-p", str(port)]
    said = host.run([*command, f"@{_ADDRESS}", ZONE, "A"]).stdout
    found = re.search(r"COOKIE: ([0-9a-f]{32,80})", said)
    if not found:
        raise HostError(f"port {port} gave no cookie: {said}")
    return found[1]


# --- probes ---------------------------------------------------------------------------------


def watch_probes(world: World, daemon: Daemon, meanwhile: Callable[[], object]) -> Probes:
    """The probes that arrive at the core while something is done."""
    command = [sys.executable, "-m", "bench.dns_speed"]
    child = world["core"].popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise HostError("the observer of probes didn't start")
    meanwhile()
    told, _ = child.communicate(timeout=60)
    health = daemon.status().health
    off_ms = [
        abs(later - earlier - _QUIET_S) * 1000
        for times in json.loads(told).values()
        for earlier, later in pairwise(times)
    ]
    rtt_ms = [float(path.rtt_ms) for path in health]
    return Probes(off_ms, rtt_ms, sorted({str(path.state) for path in health}))


_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
_REQUEST = {socket.AF_INET: (socket.IPPROTO_ICMP, 20, 8), socket.AF_INET6: (58, 0, 128)}


def hear() -> None:
    """Note when echo requests arrive, by who sent them, until standard input ends."""
    heard: dict[str, list[float]] = {}
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
                heard.setdefault(peer[0], []).append(seconds + nanoseconds / 1e9)
    print(json.dumps(heard))


# --- told -----------------------------------------------------------------------------------


def _report(samples: Samples, idle: Probes, busy: Probes) -> Report:
    kept = {
        "runs": {
            kind: {server: list(map(asdict, runs)) for server, runs in by_server.items()}
            for kind, by_server in samples.items()
        },
        "probes": {"idle": asdict(idle), "busy": asdict(busy)},
    }
    heads = ("question", "server", "answers per second", "quartiles", "ratio to BIND", "lost")
    told = ("", "probes", "off, median", "p99", "longest", "round trip, median of paths")
    tables = (
        Table("Answers per second:", heads, tuple(_rows(samples))),
        Table(
            "Our probes:",
            told,
            tuple(
                (
                    what,
                    str(len(probes.off_ms)),
                    *(f"{quantile(probes.off_ms, part):.2f} ms" for part in (0.5, 0.99, 1.0)),
                    f"{median(probes.rtt_ms):.2f} ms",
                )
                for what, probes in (("nobody asks", idle), ("full query load", busy))
            ),
        ),
    )
    figures = (*_speeds(samples), *_jitters(idle, busy))
    return Report("Answers per second", _HOW, figures, tables, kept)


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
    for what, probes, target in (("nobody asks", idle, None), ("full query load", busy, 20)):
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
    hear()

"""`hook_cost`: what the hook on connect() adds to a connect(), and that answers are free of it.

Rules: the rules and routes are the same in all cases; the hook alone is put and taken away, as the
daemon does it, inside the host's namespace. In each round every case runs once, in an order drawn
anew, and is compared with the case without a hook of its own round, which runs twice.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import behind
from bench.behind import part
from bench.clock import say
from bench.results import Figure, Report, Table
from bench.stats import median, paired, quantile, uncertainty
from bench.subject import Subject
from ifdefault.kernel.ebpf import attach, cgroups, syscall
from ifdefault.kernel.rtnetlink import AF
from ifdefault.kernel.uapi import bpf
from ifdefault.lab import ports, services
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from ifdefault.model.config import FAMILIES, Family
from ifdefault.model.errors import HostError
from ifdefault.model.kernel import Hook

_ROUNDS, _CONNECTS = 40, 500
_WARM_UP = 50
_SERVED_ROUNDS, _SPAN_S = 20, 1
_TARGET_RATIO = 0.98
_FAR = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
_OWN = "203.0.113.10"
_RULES = 10
_PLACES = (bpf.BPF_CGROUP_INET4_CONNECT, bpf.BPF_CGROUP_INET6_CONNECT)
_BPF_ENABLE_STATS = 32  # linux/bpf.h
_RUN = struct.Struct("=192xQQ")  # bpf_prog_info: run_time_ns, run_cnt
_LINGER_NONE = struct.pack("ii", 1, 0)
OFF, AGAIN, BALANCE = "no hook", "no hook, again", "balance"
RULES, CGROUPS = f"balance, {_RULES} outgoing rules", "balance and a cgroup's rule"
_CASES = (OFF, AGAIN, BALANCE, RULES, CGROUPS)
_HOW = f"""\
The lab's world `two` in the mode `balance`. *connect()* is one thread of the host that connects to
nginx at the client, beyond the provider, and closes, {_CONNECTS:,} times a round and family,
{_ROUNDS} rounds; timed is the call alone, which waits for the handshake, and a round counts with
its median. *Added* is the difference to the mean of the two runs without a hook in the same round.
*By the kernel's count* is what the programs themselves ran (BPF_ENABLE_STATS), in a pass of its
own, since counting costs time too. The rules select other destinations; the cgroup's rule is that
of another cgroup. *Answered connections*: wrk for {_SPAN_S} s, 2 threads, 64 connections at a time,
one request each, at the host's own nginx with the hook and without, {_SERVED_ROUNDS} rounds:
connections that come in never meet it."""


def run() -> Report:
    chance = random.Random(1)
    with World.up(load("two")) as world:
        site = Site(world)
        connects: dict[Family, dict[str, list[float]]] = {}
        for family in FAMILIES:
            say(f"connect(), IPv{family}")
            connects[family] = site.connects(family, chance)
        ran = site.kernels_count()
        say("the host's own server")
        served, misrouted = site.served(chance)
    return _report(connects, ran, served, misrouted)


class Site:
    """The world with its servers, and the hooks to compare."""

    def __init__(self, world: World) -> None:
        self.world, self.host, self.client = world, world["host"], world["client"]
        self.subject = Subject(world)
        services.nginx(self.client)
        services.nginx(self.host)
        for node in (self.host, self.client):
            node.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        self.hooks = dict(self._hooks())

    def _hooks(self) -> Iterator[tuple[str, Hook | None]]:
        yield OFF, None
        yield AGAIN, None
        balance = '[outgoing]\nmode = "balance"\n'
        rule = '[[outgoing.rule]]\nto = ["192.0.2.{0}"]\nvia = ["isp-b"]\n'
        many = balance + "".join(rule.format(number) for number in range(1, _RULES + 1))
        of_cgroup = '[[outgoing.rule]]\ncgroups = ["/ifdefault-bench"]\nvia = ["isp-b"]\n'
        for name, tables in ((RULES, many), (CGROUPS, balance + of_cgroup), (BALANCE, balance)):
            self.subject.apply(behind.text(tables))
            planned = self.host.python(self.subject.prepare).desired.hook
            if planned is None:
                raise HostError(f"{name}: no hook is planned")
            yield name, planned
        # what stays is that of the plain balance

    def put(self, name: str) -> None:
        self.host.python(lambda: attach.put(self.hooks[name]))

    def connects(self, family: Family, chance: random.Random) -> dict[str, list[float]]:
        """Each round's median of a connect(), in µs."""
        found: dict[str, list[float]] = {name: [] for name in _CASES}
        for number in range(part(_ROUNDS) + 1):  # the first warms up
            for name in chance.sample(_CASES, len(_CASES)):
                self.put(name)
                times = self._connect(family, _CONNECTS)
                if number:
                    found[name].append(median(times))
        return found

    def _connect(self, family: Family, count: int) -> list[float]:
        return self.host.python(lambda: _connect(family, count))

    def kernels_count(self) -> dict[str, float]:
        """What a program runs for one connect(), in ns, by case and family."""
        found = {}
        for name in (BALANCE, RULES, CGROUPS):
            for family, place in zip(FAMILIES, _PLACES, strict=True):
                self.put(OFF)
                others = set(_programs(place))
                self.put(name)
                (own,) = set(_programs(place)) - others
                with _counting():
                    self._connect(family, part(_ROUNDS) * _CONNECTS)
                    found[f"{name}, IPv{family}"] = _ran_ns(own)
        return found

    def served(self, chance: random.Random) -> tuple[dict[str, list[float]], int]:
        """Connections per second that come in, and packets that were misrouted meanwhile."""
        before = sum(self.world.misrouted().values())
        cases = OFF, AGAIN, BALANCE
        found: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(part(_SERVED_ROUNDS) + 1):
            for name in chance.sample(cases, len(cases)):
                self.put(name)
                rate = self._serve()
                if number:
                    found[name].append(rate)
        return found, sum(self.world.misrouted().values()) - before

    def _serve(self) -> float:
        command = ["wrk", "-t2", "-c64", f"-d{_SPAN_S}s", "-H", "Connection: close"]
        said = self.client.run([*command, f"http://{_OWN}/"]).stdout
        if found := re.search(r"Requests/sec: +([\d.]+)", said):
            return float(found[1])
        raise HostError(f"wrk said {said!r}")


def _connect(family: Family, count: int) -> list[float]:
    """How long each of `count` calls took, in µs, after some that don't count."""
    times = []
    for _ in range(_WARM_UP + count):
        with socket.socket(AF[family]) as sock:
            # thousands of connections would leave as many ports in TIME_WAIT
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            start_ns = time.perf_counter_ns()
            sock.connect((_FAR[family], ports.HTTP))
            times.append((time.perf_counter_ns() - start_ns) / 1000)
    return times[_WARM_UP:]


# --- the kernel's own count ---------------------------------------------------------------


def _programs(place: int) -> list[int]:
    return list(syscall.attached(cgroups.root(), place))


@contextmanager
def _counting() -> Iterator[None]:
    """The kernel counts for a block how long programs run."""
    fd = syscall.call(_BPF_ENABLE_STATS, struct.pack("=I", 0))
    try:
        yield
    finally:
        os.close(fd)


def _ran_ns(program: int) -> float:
    fd = syscall.program_by_id(program)
    try:
        told = ctypes.create_string_buffer(_RUN.size)
        syscall.call(
            bpf.BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(told), ctypes.addressof(told))
        )
    finally:
        os.close(fd)
    ran_ns, times = map(int, _RUN.unpack(told))
    return ran_ns / max(1, times)


# --- what was found -----------------------------------------------------------------------


def _added(found: dict[str, list[float]], name: str) -> list[float]:
    base = zip(found[OFF], found[AGAIN], strict=True)
    return [with_it - sum(pair) / 2 for with_it, pair in zip(found[name], base, strict=True)]


def _report(
    connects: dict[Family, dict[str, list[float]]],
    ran: dict[str, float],
    served: dict[str, list[float]],
    misrouted: int,
) -> Report:
    figures = []
    rows = []
    for family, found in connects.items():
        for name in (BALANCE, RULES, CGROUPS):
            added = _added(found, name)
            figures.append(
                Figure(f"{name}, IPv{family}: added to a connect()", median(added), "µs")
            )
            told = ran[f"{name}, IPv{family}"]
            figures.append(Figure(f"{name}, IPv{family}: by the kernel's count", told, "ns"))
        for name, times in found.items():
            added = _added(found, name)
            parts = (median(times), median(added), uncertainty(added))
            cells = (f"{parts[0]:.2f} µs", f"{parts[1]:.2f} µs", f"±{parts[2]:.2f}")
            rows.append((f"IPv{family}", name, *cells))
    base = [sum(pair) / 2 for pair in zip(served[OFF], served[AGAIN], strict=True)]
    ratios = paired(served[BALANCE], base)
    noise = paired(served[AGAIN], served[OFF])
    what = "Answered connections per second with the hook: ratio to none"
    figures += [
        Figure(what, median(ratios), "ratio", _TARGET_RATIO, at_least=True),
        Figure("packets misrouted meanwhile", misrouted, target=0),
    ]
    note = (
        f"The ratio's median is certain to ±{uncertainty(ratios):.3f}; two runs without the hook"
        f" are at {median(noise):.3f} ({quantile(noise, 0.25):.3f}-{quantile(noise, 0.75):.3f})."
    )
    heads = ("", "", "connect(), median", "added", "certain to")
    samples = {
        "connect_us": {f"IPv{family}": found for family, found in connects.items()},
        "ran_ns": ran,
        "served_per_s": served,
    }
    tables = (Table("A connect() to a far server:", heads, tuple(rows)),)
    return Report("What the hook costs", _HOW, tuple(figures), tables, samples, (note,))

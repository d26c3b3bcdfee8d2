"""`hook_cost`: what the eBPF hook adds to a connect(), and that inbound connections don't pay it.

Rules: rules and routes are the same in all cases; only the hook is attached and detached, as the
daemon does it, inside the host's namespace. In each round every case runs once, in random order,
and is compared with the case without a hook in the same round, which runs twice.
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

from bench import lan
from bench.clock import log
from bench.lan import part
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
_ATTACH_TYPES = (bpf.BPF_CGROUP_INET4_CONNECT, bpf.BPF_CGROUP_INET6_CONNECT)
_BPF_ENABLE_STATS = 32  # linux/bpf.h
_RUN = struct.Struct("=192xQQ")  # bpf_prog_info: run_time_ns, run_cnt
_LINGER_NONE = struct.pack("ii", 1, 0)
OFF, AGAIN, BALANCE = "no hook", "no hook, again", "balance"
RULES, CGROUPS = f"balance, {_RULES} outgoing rules", "balance and a cgroup rule"
_CASES = (OFF, AGAIN, BALANCE, RULES, CGROUPS)
_HOW = f"""\
The lab's world `two` with `mode = "balance"`. One thread on the host connects to nginx on the
client, beyond the provider, and closes, {_CONNECTS:,} times per round and family, {_ROUNDS} rounds.
Only the connect() is timed, which waits for the handshake; a round's value is its median. *Added*
is the difference from the mean of the two runs without a hook in the same round. *By the kernel's
count* is the run time of the eBPF programs (BPF_ENABLE_STATS), in a separate pass, because counting
costs time. The outgoing rules and the cgroup rule don't match this traffic. *Inbound*: wrk for
{_SPAN_S} s, 2 threads, 64 connections at a time, one request each, to the host's nginx with and
without the hook, {_SERVED_ROUNDS} rounds."""


def run() -> Report:
    rng = random.Random(1)
    with World.up(load("two")) as world:
        site = Site(world)
        connects: dict[Family, dict[str, list[float]]] = {}
        for family in FAMILIES:
            log(f"connect(), IPv{family}")
            connects[family] = site.connects(family, rng)
        ran = site.kernels_count()
        log("the host's own server")
        served, misrouted = site.served(rng)
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
            self.subject.apply(lan.text(tables))
            planned = self.host.python(self.subject.prepare).desired.hook
            if planned is None:
                raise HostError(f"{name}: no hook is planned")
            yield name, planned
        # the hook of plain balance stays attached

    def put(self, name: str) -> None:
        self.host.python(lambda: attach.put(self.hooks[name]))

    def connects(self, family: Family, rng: random.Random) -> dict[str, list[float]]:
        """Each round's median of a connect(), in µs."""
        medians: dict[str, list[float]] = {name: [] for name in _CASES}
        for number in range(part(_ROUNDS) + 1):  # the first warms up
            for name in rng.sample(_CASES, len(_CASES)):
                self.put(name)
                times = self._connect(family, _CONNECTS)
                if number:
                    medians[name].append(median(times))
        return medians

    def _connect(self, family: Family, count: int) -> list[float]:
        return self.host.python(lambda: _connect(family, count))

    def kernels_count(self) -> dict[str, float]:
        """The run time of a program for one connect(), in ns, by case and family."""
        ran = {}
        for name in (BALANCE, RULES, CGROUPS):
            for family, attach_type in zip(FAMILIES, _ATTACH_TYPES, strict=True):
                self.put(OFF)
                others = set(_programs(attach_type))
                self.put(name)
                (own,) = set(_programs(attach_type)) - others
                with _counting():
                    self._connect(family, part(_ROUNDS) * _CONNECTS)
                    ran[f"{name}, IPv{family}"] = _ran_ns(own)
        return ran

    def served(self, rng: random.Random) -> tuple[dict[str, list[float]], int]:
        """Inbound connections per second, and packets that were misrouted meanwhile."""
        before = sum(self.world.misrouted().values())
        cases = OFF, AGAIN, BALANCE
        rates: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(part(_SERVED_ROUNDS) + 1):
            for name in rng.sample(cases, len(cases)):
                self.put(name)
                rate = self._serve()
                if number:
                    rates[name].append(rate)
        return rates, sum(self.world.misrouted().values()) - before

    def _serve(self) -> float:
        command = ["wrk", "-t2", "-c64", f"-d{_SPAN_S}s", "-H", "Connection: close"]
        output = self.client.run([*command, f"http://{_OWN}/"]).stdout
        if match := re.search(r"Requests/sec: +([\d.]+)", output):
            return float(match[1])
        raise HostError(f"wrk printed {output!r}")


def _connect(family: Family, count: int) -> list[float]:
    """How long each of `count` calls took, in µs, after a warm-up."""
    times = []
    for _ in range(_WARM_UP + count):
        with socket.socket(AF[family]) as sock:
            # otherwise thousands of connections leave as many ports in TIME_WAIT
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            start_ns = time.perf_counter_ns()
            sock.connect((_FAR[family], ports.HTTP))
            times.append((time.perf_counter_ns() - start_ns) / 1000)
    return times[_WARM_UP:]


# --- the kernel's own count ---------------------------------------------------------------


def _programs(attach_type: int) -> list[int]:
    return list(syscall.attached(cgroups.root(), attach_type))


@contextmanager
def _counting() -> Iterator[None]:
    """Let the kernel count the programs' run time, for a block."""
    fd = syscall.call(_BPF_ENABLE_STATS, struct.pack("=I", 0))
    try:
        yield
    finally:
        os.close(fd)


def _ran_ns(program: int) -> float:
    fd = syscall.program_by_id(program)
    try:
        info = ctypes.create_string_buffer(_RUN.size)
        syscall.call(
            bpf.BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info))
        )
    finally:
        os.close(fd)
    ran_ns, times = map(int, _RUN.unpack(info))
    return ran_ns / max(1, times)


# --- the report ---------------------------------------------------------------------------


def _added(medians: dict[str, list[float]], name: str) -> list[float]:
    base = zip(medians[OFF], medians[AGAIN], strict=True)
    return [with_it - sum(pair) / 2 for with_it, pair in zip(medians[name], base, strict=True)]


def _report(
    connects: dict[Family, dict[str, list[float]]],
    ran: dict[str, float],
    served: dict[str, list[float]],
    misrouted: int,
) -> Report:
    figures = []
    rows = []
    for family, medians in connects.items():
        for name in (BALANCE, RULES, CGROUPS):
            added = _added(medians, name)
            figures.append(
                Figure(f"{name}, IPv{family}: added to a connect()", median(added), "µs")
            )
            ran_ns = ran[f"{name}, IPv{family}"]
            figures.append(Figure(f"{name}, IPv{family}: by the kernel's count", ran_ns, "ns"))
        for name, times in medians.items():
            added = _added(medians, name)
            parts = (median(times), median(added), uncertainty(added))
            cells = (f"{parts[0]:.2f} µs", f"{parts[1]:.2f} µs", f"±{parts[2]:.2f}")
            rows.append((f"IPv{family}", name, *cells))
    base = [sum(pair) / 2 for pair in zip(served[OFF], served[AGAIN], strict=True)]
    ratios = paired(served[BALANCE], base)
    noise = paired(served[AGAIN], served[OFF])
    what = "inbound connections per second, ratio to no hook"
    figures += [
        Figure(what, median(ratios), "ratio", _TARGET_RATIO, at_least=True),
        Figure("packets misrouted meanwhile", misrouted, target=0),
    ]
    note = (
        f"The median ratio is ±{uncertainty(ratios):.3f}; of two runs without the hook it is"
        f" {median(noise):.3f} ({quantile(noise, 0.25):.3f}-{quantile(noise, 0.75):.3f})."
    )
    heads = ("", "", "connect(), median", "added", "±")
    samples = {
        "connect_us": {f"IPv{family}": medians for family, medians in connects.items()},
        "ran_ns": ran,
        "served_per_s": served,
    }
    tables = (Table("A connect() to a remote server", heads, tuple(rows)),)
    return Report("Cost of the connect() hook", _HOW, tuple(figures), tables, samples, (note,))

"""An engine with invented uplinks behind real control sockets: python -m tests.unit.fake_engine DIR

isp-a   primary, 4 ms, now and then a lost probe
isp-b   usable, 11 ms; drained by a request
isp-c   its IPv4 is down, its IPv6 up
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from ifdefault.daemon.control.server import Control
from ifdefault.ipc.control import protocol as p
from ifdefault.ipc.control.client import Peer
from ifdefault.model.health import Decision, Forced, Health, LineLoad, TargetHealth
from ifdefault.model.report import (
    CheckedServer,
    CounterReport,
    DaemonStatus,
    DnsStatus,
    Draining,
    Event,
    Named,
    PathCounters,
    UplinkCounters,
)

ORDER = ("isp-a", "isp-b", "isp-c")
TARGETS = tuple(
    TargetHealth(f"icmp://{a}", 15321, lost, rtt, note)
    for a, lost, rtt, note in (
        ("1.1.1.1", 3, 4.1, ""),
        ("8.8.8.8", 0, 5.3, ""),
        ("9.9.9.9", 41, 12.9, "silent for 12 s"),
        ("208.67.222.222", 0, 9.0, ""),
    )
)


class FakeEngine:
    def __init__(self) -> None:
        self.started_s = time.monotonic() - 8000.0
        self.forced: dict[str, Forced] = {}
        self.rounds, self.sums = 0, dict.fromkeys(ORDER, 0.0)
        self.events = [
            Event(time.time() - 90_000, "engine", "", "started, 3 uplinks", "info", 1),
            Event(time.time() - 4000, "primary", "isp-a", "primary IPv4: none -> isp-a", "info", 2),
            Event(
                time.time() - 192,
                "path",
                "isp-c",
                "isp-c IPv4: up -> down (4 rounds lost in 310 ms)",
                "error",
                3,
            ),
            Event(
                time.time() - 191, "ended", "isp-c", "isp-c IPv4: ended 12 connections", "info", 4
            ),
            Event(time.time() - 60, "config", "", "a hostile \x1b[31mname\u202e", "warning", 5),
        ]

    def rtt(self, name: str) -> float:
        wave = 1 + 0.2 * math.sin(time.monotonic() / 3) + 2 * (time.monotonic() % 40 < 2)
        return {"isp-a": 4.0, "isp-b": 11.0, "isp-c": 30.0}[name] * wave

    def status(self) -> DaemonStatus:
        now = time.monotonic()
        down = now - 192
        cause = "no target answers"
        health = tuple(
            Health(
                name,
                family,
                "up",
                self.started_s,
                "",
                0.0,
                self.rtt(name),
                "answers",
                targets=TARGETS,
            )
            for name in ORDER
            for family in (4, 6)
        )
        dead = replace(health[4], state="down", since_s=down, cause=cause, loss_ratio=1.0, rtt_ms=0)
        return DaemonStatus(
            os.getpid(),
            now - self.started_s,
            now,
            "/etc/ifdefault/ifdefault.toml",
            (*health[:4], dead, health[5]),
            Decision(((4, ORDER), (6, ORDER)), ((4, ORDER[:2]), (6, ORDER))),
            dict(self.forced),
            tuple(Draining(n, now + 900, 42, 3) for n, f in self.forced.items() if f == "drain"),
            rates={
                "isp-a": (12.4e6 * (1 + math.sin(now / 20)), 1.2e6),
                "isp-b": (0.3e6, 94e3),
                "isp-c": (940.0, 0.0),
            },
            lines=(LineLoad("isp-b", 0.96, "out", 10_000_000, 1, full=True),),
            dns=DnsStatus(
                (
                    Named(
                        "www.example.org",
                        "failover",
                        30,
                        (("isp-a", "203.0.113.10"),),
                        self.started_s,
                    ),
                    Named(
                        "all.example.org",
                        "rotate",
                        30,
                        (("isp-a", "203.0.113.10"), ("isp-b", "198.51.100.10")),
                        self.started_s,
                    ),
                )
            ),
            servers=(
                CheckedServer("tcp:443", "192.0.2.7", 443, "up", self.started_s, "answers"),
                CheckedServer("tcp:443", "192.0.2.8", 443, "down", down, "refused"),
            ),
        )

    def counters(self) -> CounterReport:
        now = time.monotonic()
        rounds = int((now - self.started_s) * 2)
        for name in ORDER:
            self.sums[name] += (rounds - self.rounds) * self.rtt(name) / 1000
        self.rounds = rounds
        paths = tuple(
            PathCounters(
                name,
                family,
                0 if (name, family) == ("isp-c", 4) else rounds,
                rounds // 60 if name == "isp-a" else 0,
                self.sums[name],
                (),
                (),
                0.0,
                (),
            )
            for name in ORDER
            for family in (4, 6)
        )
        uplinks = tuple(
            UplinkCounters(n, 0, 0, c) for n, c in zip(ORDER, (1204, 87, 0), strict=True)
        )
        return CounterReport(time.time() - (now - self.started_s), paths, uplinks)

    @property
    def last(self) -> int:
        return self.events[-1].serial

    control_token = "a control token"

    def token_refused(self, uid: int) -> None:
        pass

    def read(self, query: p.Query) -> p.Reply:
        match query:
            case p.Status():
                return self.status()
            case p.Counters():
                return self.counters()
            case p.Events(limit, after):
                events = tuple(e for e in self.events if e.serial > after)
                return p.EventList(events[-limit:], self.events[-1].serial)
        raise AssertionError(query)

    async def perform(self, command: p.Command, _: Peer) -> p.Reply:
        assert isinstance(command, p.SetUplink)
        was = self.forced.get(command.name, "auto")
        self.forced[command.name] = command.state
        if command.state == "auto":
            del self.forced[command.name]
        text = f"{command.name}: {was} -> {command.state}, forced by the operator"
        serial = self.events[-1].serial + 1
        self.events.append(Event(time.time(), "uplink", command.name, text, "warning", serial))
        return p.UplinkChanged(command.name, was, command.state)


async def main(run_dir: Path) -> None:
    control = Control(run_dir, FakeEngine())
    await control.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

"""The frontend asks as the engine tells it to, and says what came of it.

         ┌─ isp-a ── wan0 ┐
client ──┤                ├ host     the engine's part is this process's; a real frontend, whose
         └─ isp-b ── wan1 ┘          sockets are made in the host's namespace
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ifdefault.daemon.process.frontend_connection import Frontend, start_frontend
from ifdefault.ipc import privileges
from ifdefault.ipc.messages import Bind, Message, Outcome, Ping, Pong, Send, Unbind
from ifdefault.kernel import open_probe_sockets
from ifdefault.lab import ports, services
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import PATIENCE_S
from ifdefault.lab.world import World
from ifdefault.model.config import Family, ProbeKind
from tests.net.conftest import LabWorld

OWN: dict[Family, str] = {4: "203.0.113.10", 6: "2001:db8:a::10"}
GATEWAY: dict[Family, str] = {4: "203.0.113.1", 6: "2001:db8:a::1"}
CLIENT: dict[Family, str] = {4: "198.18.1.10", 6: "2001:db8:f:1::10"}
FAMILIES: tuple[Family, ...] = (4, 6)
PATIENT_MS, BRIEF_MS = 20_000, 150


async def until(condition: Callable[[], Any], what: str) -> None:
    """As `lab.waiting.eventually`, on the loop."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.002)


@dataclass
class Talk:
    """A frontend, what it was told and what it said."""

    world: World
    heard: list[Message] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    dropped: list[Message] = field(default_factory=list)
    frontend: Frontend = field(init=False)
    seq: int = 0

    def bind(self, path: int, family: Family, dev: str = "wan0", own: str = "") -> None:
        with self.world["host"].enter():
            sock = open_probe_sockets.icmp_socket(family, own or OWN[family], dev)
        with sock:
            self.frontend.send(Bind(path, family), [sock.fileno()])

    def send(
        self,
        kind: ProbeKind,
        address: str,
        port: int = 0,
        *,
        host: str = "",
        query: str = "",
        statuses: tuple[int, ...] = (),
        timeout_ms: int = PATIENT_MS,
        path: int = 1,
    ) -> int:
        """Send, and return the seq."""
        self.seq += 1
        message = Send(path, self.seq, kind, address, port, host, query, statuses, timeout_ms)
        if kind == "icmp":
            self.frontend.send(message)
            return self.seq
        family: Family = 6 if ":" in address else 4
        make = (
            open_probe_sockets.datagram_socket
            if kind == "dns"
            else open_probe_sockets.stream_socket
        )
        with self.world["host"].enter():
            sock = make(family, OWN[family], "wan0")
        with sock:
            self.frontend.send(message, [sock.fileno()])
        return self.seq

    def outcomes(self, seq: int) -> list[Outcome]:
        return [m for m in self.heard if isinstance(m, Outcome) and m.seq == seq]

    async def outcome(self, seq: int, count: int = 1) -> Outcome:
        await until(lambda: len(self.outcomes(seq)) >= count, f"outcome {count} of {seq}")
        assert len(self.outcomes(seq)) == count
        return self.outcomes(seq)[-1]

    async def ask(self, kind: ProbeKind, address: str, port: int = 0, **more: Any) -> Outcome:
        return await self.outcome(self.send(kind, address, port, **more))

    async def settled(self) -> None:
        """All that was sent so far has been taken in."""
        self.seq += 1
        token = self.seq
        self.frontend.send(Ping(token))
        await until(lambda: Pong(token) in self.heard, "a pong")


@asynccontextmanager
async def talking(world: World) -> AsyncIterator[Talk]:
    talk = Talk(world)
    user = privileges.choose_user("nobody")[:2]
    talk.frontend = await start_frontend(
        user, talk.heard.append, talk.ends.append, talk.dropped.append
    )
    try:
        yield talk
        if not talk.ends:
            await talk.settled()  # it lives
            talk.frontend.close()
            assert await talk.frontend.over() == "closed, exit status 0"
    finally:
        talk.frontend.kill("the test is over")
        await talk.frontend.over()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that doesn't run for a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def lay(node: Node, hook: str, rule: str) -> None:
    chain = f"chain c {{\ntype filter hook {hook} priority 0\n{rule}\n}}"
    node.nft(f"table inet test {{\n{chain}\n}}\n")


def clear(*nodes: Node) -> None:
    for node in nodes:
        node.nft("delete table inet test")


# --- answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_is_answered(lab_world: LabWorld, family: Family) -> None:
    world, target = lab_world("two"), CLIENT[family]
    services.builtin(world["client"], http=True)
    services.resolver(world["client"], [target], '  local-data: "www.example. 5 IN A 192.0.2.1"\n')

    async def main() -> None:
        async with talking(world) as talk:
            talk.bind(1, family)
            asked = [
                talk.send("icmp", target),
                talk.send("icmp", GATEWAY[family]),
                talk.send("tcp", target, ports.TCP_ECHO),
                talk.send("tcp", target, ports.CLOSED),
                talk.send("http", target, ports.HTTP, host="www.example", query="/"),
                talk.send("dns", target, 53, query="www.example"),
                talk.send("dns", target, ports.CLOSED, query="www.example"),
            ]
            outcomes = [await talk.outcome(seq) for seq in asked]
            assert [(o.verdict, o.detail) for o in outcomes] == [
                ("answered", ""),
                ("answered", ""),
                ("answered", ""),
                ("answered", "refused"),
                ("answered", "status 200"),
                ("answered", ""),
                ("wrong", "port closed"),
            ]
            assert all(0 < o.rtt_us < PATIENT_MS * 1000 for o in outcomes[:-1])

    asyncio.run(main())


def test_each_path_leaves_by_its_own_uplink(lab_world: LabWorld) -> None:
    world = lab_world("two")
    lay(world["isp-a"], "forward", "drop")

    async def main() -> None:
        async with talking(world) as talk:
            talk.bind(1, 4)
            talk.bind(2, 4, "wan1", "198.51.100.10")
            first = talk.send("icmp", CLIENT[4], timeout_ms=BRIEF_MS)
            assert (await talk.ask("icmp", CLIENT[4], path=2)).verdict == "answered"
            assert (await talk.outcome(first)).verdict == "lost"
            assert (await talk.ask("icmp", GATEWAY[4])).verdict == "answered"
            assert {(o.path, o.seq) for o in talk.heard if isinstance(o, Outcome)} == {
                (1, 1), (2, 2), (1, 3),
            }  # fmt: skip

    asyncio.run(main())


def test_a_link_local_gateway(lab_world: LabWorld) -> None:
    world = lab_world("linklocal")
    listing = world["isp-a"].run(["ip", "-6", "-br", "address", "show", "cust0"]).stdout
    gateway = next(w for w in listing.split() if w.startswith("fe80")).partition("/")[0]

    async def main() -> None:
        async with talking(world) as talk:
            talk.bind(1, 6)
            assert (await talk.ask("icmp", gateway)).verdict == "answered"

    asyncio.run(main())


def test_a_web_server_that_says_something_else(lab_world: LabWorld) -> None:
    world, target = lab_world("two"), CLIENT[4]
    services.nginx(world["client"])
    services.builtin(world["client"])

    async def main() -> None:
        async with talking(world) as talk:

            async def get(path: str, statuses: tuple[int, ...] = (), port: int = 80) -> str:
                outcome = await talk.ask(
                    "http", target, port, host="www.example", query=path, statuses=statuses
                )
                return f"{outcome.verdict}: {outcome.detail}"

            assert await get("/") == "answered: status 200"
            assert await get("/none") == "wrong: status 404, expected one below 400"
            assert await get("/none", (404,)) == "answered: status 404"
            assert await get("/", (204, 301)) == "wrong: status 200, expected 204 or 301"
            assert await get("/", port=ports.CLOSED) == "wrong: refused"
            assert await get("/", port=ports.TCP_ECHO) == "wrong: not HTTP"

    asyncio.run(main())


# --- no answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_black_hole_is_told_at_the_timeout(lab_world: LabWorld, family: Family) -> None:
    world, target = lab_world("two"), CLIENT[family]
    lay(world["core"], "forward", "drop")

    async def main() -> None:
        async with talking(world) as talk:
            talk.bind(1, family)
            start_s = time.monotonic()
            asked = [
                talk.send("icmp", target, timeout_ms=BRIEF_MS),
                talk.send("tcp", target, 7000, timeout_ms=BRIEF_MS),
                talk.send("http", target, 80, host=target, query="/", timeout_ms=BRIEF_MS),
                talk.send("https", target, 443, host=target, query="/", timeout_ms=BRIEF_MS),
                talk.send("dns", target, 53, query="www.example", timeout_ms=BRIEF_MS),
            ]
            for seq in asked:
                outcome = await talk.outcome(seq)
                assert (outcome.verdict, outcome.detail) == ("lost", "no answer")
            assert time.monotonic() - start_s >= BRIEF_MS / 1000

    asyncio.run(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_router_refuses_is_no_answer(lab_world: LabWorld, family: Family) -> None:
    """As a gateway says that has lost its provider; over TCP the target's own is an answer."""
    world, target = lab_world("two"), CLIENT[family]
    rule = "meta l4proto { tcp, udp } reject with icmpx type"

    async def main() -> None:
        async with talking(world) as talk:

            async def told() -> list[tuple[str, str]]:
                asked = [talk.send("tcp", target, 7000), talk.send("dns", target, 53, query="a.b")]
                return [
                    ((await talk.outcome(s)).verdict, talk.outcomes(s)[0].detail) for s in asked
                ]

            for reason in ("port-unreachable", "admin-prohibited"):
                router, client = world["isp-a"], world["client"]
                lay(client, "input", f"{rule} {reason}")
                assert await told() == [("answered", "refused"), ("wrong", "port closed")]
                lay(router, "forward", f"{rule} {reason}")
                source = f"(from {GATEWAY[family]})"
                for verdict, detail in await told():
                    assert verdict == "lost"
                    assert detail.endswith(source)
                clear(router, client)

    asyncio.run(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_our_own_faults_are_told_as_such(lab_world: LabWorld, family: Family) -> None:
    world, target = lab_world("two"), CLIENT[family]
    host = world["host"]

    async def main() -> None:
        async with talking(world) as talk:

            async def told(*kinds: ProbeKind) -> list[tuple[str, str]]:
                at: dict[str, Any] = {"icmp": 0, "tcp": 7000, "http": 80, "dns": 53}
                asked = [talk.send(k, target, at[k], host="a", query="/") for k in kinds]
                return [
                    ((await talk.outcome(s)).verdict, talk.outcomes(s)[0].detail) for s in asked
                ]

            assert await told("icmp") == [("local", "no socket")]  # never bound
            talk.bind(1, family)
            lay(host, "output", "meta l4proto != tcp drop")
            assert await told("icmp", "dns") == [("local", "operation not permitted")] * 2
            clear(host)
            # IPv4 takes a target to be on the link where a device, but no route, is known
            cut = {4: "ip link set wan0 down", 6: "ip -6 route flush default"}
            host.run(cut[family].split())
            unreachable = ("local", "network is unreachable")
            assert await told("icmp", "tcp", "http", "dns") == [unreachable] * 4

    asyncio.run(main())


def test_what_is_forgotten_is_not_told(lab_world: LabWorld) -> None:
    world = lab_world("two")
    lay(world["core"], "forward", "drop")

    async def main() -> None:
        async with talking(world) as talk:
            talk.bind(1, 4)
            talk.bind(2, 4)
            for kind, port in (("icmp", 0), ("tcp", 7000)):
                talk.send(kind, CLIENT[4], port, timeout_ms=BRIEF_MS)  # type: ignore[arg-type]
            await talk.settled()
            talk.frontend.send(Unbind(1))
            assert (await talk.ask("icmp", CLIENT[4], path=2, timeout_ms=BRIEF_MS)).path == 2
            told = [(m.path, m.verdict) for m in talk.heard if isinstance(m, Outcome)]
            assert told == [(2, "lost")]
            seq = talk.send("icmp", CLIENT[4], path=2)
            talk.bind(2, 4)
            assert (await talk.outcome(seq)).detail == "socket replaced"

    asyncio.run(main())

"""DNS over TCP: what clients may do, and what they can't do to others.

client ── core ─┬─ isp-a ── wan0 ┐
                └─ isp-b ── wan1 ┴ host     the frontend serves; clients are sockets of this process
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from ifdefault.frontend.server import tcp
from ifdefault.lab.world import World
from tests.net import dns_tcp
from tests.net.conftest import LabWorld
from tests.net.dns_cases import ZONE, A, B, zone
from tests.net.dns_tcp import ended, query, receive
from tests.net.served import Server, serving, until

PROMPT_S = 5.0
MOST_GROWTH_KB = 24 * 1024


def connect(world: World, source: str = "198.18.1.10", target: str = A) -> socket.socket:
    with world["client"].enter():
        return dns_tcp.connect(source, target)


def test_answers_come_in_order(lab_world: LabWorld) -> None:
    """Many queries in one packet, and one in many."""
    world = lab_world("two")

    def talk() -> None:
        with connect(world) as sock:
            names = [f"n{n}.wild.{ZONE}" for n in range(300)]
            sock.sendall(b"".join(query(name) for name in names))
            told = [str(receive(sock).question[0].name) for _ in names]
            assert told == [f"{name}." for name in names]
            for byte in query():
                sock.sendall(bytes([byte]))
            assert len(receive(sock).answer[0]) == 2
            sock.sendall(query(f"long.{ZONE}", "TXT") * 50)
            sock.shutdown(socket.SHUT_WR)
            assert all(len(receive(sock).answer[0]) == 10 for _ in range(50))
            assert sock.recv(1) == b""

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone())
            await asyncio.to_thread(talk)

    asyncio.run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0",
        b"\0\5hello",
        struct.pack("!H", 60_000) + bytes(10_000),
        b"\0\x0c\0\1\x84\0\0\0\0\0\0\0\0\0",  # a response
    ],
)
def test_what_is_no_query_ends_the_connection(lab_world: LabWorld, sent: bytes) -> None:
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone())
            with connect(world) as sock:
                sock.sendall(sent)
                await until(lambda: ended(sock), "the end")
            assert len(await server.short(f"+tcp @{A} {ZONE} A")) == 2

    asyncio.run(main())


def test_an_idle_connection_is_ended(lab_world: LabWorld) -> None:
    """What counts is the last exchange, not the last byte."""
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone())
            with connect(world) as silent, connect(world) as slow, connect(world) as live:
                start_s = time.monotonic()
                drops = iter(b"\x0f\xff" + bytes(1000))  # a long query
                over: dict[str, float] = {}
                while len(over) < 2:
                    assert time.monotonic() < start_s + 4 * tcp.IDLE_S
                    for name, sock in (("silent", silent), ("slow", slow)):
                        if name not in over and ended(sock):
                            over[name] = time.monotonic() - start_s
                    if "slow" not in over:
                        _drip(slow, next(drops))
                    await asyncio.to_thread(_ask, live)
                    await asyncio.sleep(0.3)
                assert all(tcp.IDLE_S - 1 <= s <= tcp.IDLE_S + 4 for s in over.values())
                await asyncio.to_thread(_ask, live)

    asyncio.run(main())


def _drip(sock: socket.socket, byte: int) -> None:
    with suppress(OSError):
        sock.send(bytes([byte]))


def _ask(sock: socket.socket) -> None:
    sock.settimeout(60)
    sock.sendall(query())
    assert receive(sock).answer


def test_a_thousand_slow_clients_harm_nobody(lab_world: LabWorld) -> None:
    """Half of them send a byte a second, half never read what they ask for."""
    world = lab_world("two")
    networks = [f"198.18.{n}.10" for n in range(1, 15)]
    for source in networks[2:]:
        world["client"].ip(f"address add {source}/16 dev net0")

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone())
            await _answered_promptly(server)
            before_kb = _rss_kb(server.connection.pid)
            command = [sys.executable, "-m", "tests.net.slow_clients", str(tcp.MOST // 10)]
            pipe = subprocess.PIPE
            slow = world["client"].popen([*command, *networks[:10]], stdin=pipe, stdout=pipe)
            assert slow.stdin
            assert slow.stdout
            with ExitStack() as stack:
                assert await asyncio.to_thread(slow.stdout.readline) == "connected\n"
                for _ in range(4):
                    slow.stdin.write("\n")
                    slow.stdin.flush()
                    assert await asyncio.to_thread(slow.stdout.readline) == "done\n"
                    await _answered_promptly(server)
                grown_kb = _rss_kb(server.connection.pid) - before_kb
                assert grown_kb < MOST_GROWTH_KB
                # the server is full, and nobody is turned away for that
                more = [stack.enter_context(connect(world, s)) for s in networks[10:] * 10]
                for sock in more:
                    await asyncio.to_thread(_ask, sock)
                await _answered_promptly(server)
                slow.stdin.close()
                assert await asyncio.to_thread(slow.stdout.readline) == "ended\n"

    asyncio.run(main())


async def _answered_promptly(server: Server) -> None:
    for asked in (f"+tcp @{A} {ZONE} A", f"@{A} {ZONE} A", f"+tcp @{B} {ZONE} A"):
        start_s = time.monotonic()
        assert len(await server.short(asked)) == 2
        assert time.monotonic() - start_s < PROMPT_S


def _rss_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_distant_resolver_with_a_connection_for_each_query(lab_world: LabWorld) -> None:
    """More of them at once than one network may have, as it takes a round trip to close each: the
    oldest are ended by then, and have their answers."""
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone())
            most = tcp.MOST_OF_A_NETWORK
            ask = partial(dns_tcp.ask_by_many, A, 4 * most, most // 2)
            answered = await asyncio.to_thread(world["client"].python, ask)
            assert answered == 4 * most

    asyncio.run(main())


def test_one_network_cannot_take_it_all(lab_world: LabWorld) -> None:
    """Its own longest idle connection makes room for its next; others keep theirs."""
    world = lab_world("two")

    async def main() -> None:
        async with serving(world) as server:
            server.publish(zone())
            with ExitStack() as stack:
                other = stack.enter_context(connect(world, "198.18.2.10"))
                await asyncio.to_thread(_ask, other)
                mine = [
                    stack.enter_context(connect(world, "198.18.1.10"))
                    for _ in range(tcp.MOST_OF_A_NETWORK)
                ]
                for sock in mine:
                    await asyncio.to_thread(_ask, sock)
                for sock in mine[:10]:
                    await asyncio.to_thread(_ask, sock)
                new = [stack.enter_context(connect(world, "198.18.1.11")) for _ in range(5)]
                for sock in new:
                    await asyncio.to_thread(_ask, sock)
                assert [ended(sock) for sock in mine] == [10 <= n < 15 for n in range(len(mine))]
                await asyncio.to_thread(_ask, other)

    asyncio.run(main())

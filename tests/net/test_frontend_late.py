"""Answers to DNS, HTTP and TCP probes that come late, or to a frontend that was stopped.

client ── isp-a ── wan0 host     the servers at the client are played by this process
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.test_frontend import BRIEF_MS, CLIENT, Talk, clear, lay, stopped, talking

Answer = Callable[[], None]
TARGET = CLIENT[4]


@contextmanager
def dns_asked(world: World, talk: Talk) -> Iterator[tuple[int, Answer]]:
    """A query that has reached its server; and how to answer it."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with world["client"].python(make) as server:
        server.settimeout(60)
        server.bind((TARGET, 53))
        seq = talk.send("dns", TARGET, 53, query="www.example", timeout_ms=BRIEF_MS)
        query, where = server.recvfrom(512)

        def answer() -> None:
            server.sendto(query[:2] + b"\x81\x80" + query[4:], where)

        yield seq, answer


@contextmanager
def http_asked(world: World, talk: Talk) -> Iterator[tuple[int, Answer]]:
    with world["client"].python(lambda: socket.create_server((TARGET, 80))) as server:
        server.settimeout(60)
        seq = talk.send("http", TARGET, 80, host="a", query="/", timeout_ms=BRIEF_MS)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            connection.recv(4096)
            yield seq, lambda: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


KINDS = {"dns": dns_asked, "http": http_asked}


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_answer_repairs(lab_world: LabWorld, kind: str) -> None:
    world = lab_world("one")

    async def main() -> None:
        async with talking(world) as talk:
            with KINDS[kind](world, talk) as (seq, answer):
                lost = await talk.outcome(seq)
                assert (lost.verdict, lost.detail) == ("lost", "no answer")
                answer()
                late = await talk.outcome(seq, 2)
                assert (late.verdict, late.detail) == ("answered", "late")
                assert late.rtt_us >= BRIEF_MS * 1000

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_that_was_stopped_condemns_nobody(lab_world: LabWorld, kind: str) -> None:
    world = lab_world("one")

    async def main() -> None:
        async with talking(world) as talk:
            with KINDS[kind](world, talk) as (seq, answer):
                with stopped(talk.frontend.pid):
                    answer()
                    over_s = time.monotonic() + BRIEF_MS / 1000
                    eventually(lambda: time.monotonic() > over_s, what="the timeout")
                assert (await talk.outcome(seq)).verdict == "answered"

    asyncio.run(main())


def test_a_connection_that_comes_late(lab_world: LabWorld) -> None:
    """The kernel asks once more after a second."""
    world = lab_world("one")
    client = world["client"]

    async def main() -> None:
        async with talking(world) as talk:
            lay(client, "input", "tcp dport 7000 drop")
            with client.python(lambda: socket.create_server((TARGET, 7000))):
                seq = talk.send("tcp", TARGET, 7000, timeout_ms=BRIEF_MS)
                assert (await talk.outcome(seq)).verdict == "lost"
                clear(client)
                assert (await talk.outcome(seq, 2)).verdict == "answered"

    asyncio.run(main())

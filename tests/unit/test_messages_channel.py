"""The channel between engine and frontend, both ends in one loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest

from ifdefault.ipc import channel
from ifdefault.ipc.channel import QUEUE, Channel
from ifdefault.ipc.messages import (
    FROM_FRONTEND,
    MAX_BYTES,
    TO_FRONTEND,
    Bind,
    Message,
    Ping,
    Pong,
    Send,
    Unbind,
    encode,
)
from tests.unit.open_files import open_files


def send(seq: int, kind: str = "icmp") -> Send:
    port = 0 if kind == "icmp" else 80
    return Send(1, seq, kind, "192.0.2.1", port, "", "", (), 100)  # type: ignore[arg-type]


_OPEN = 100  # sockets that are left open: a process may have few descriptors


class Ends:
    """Both ends of a channel, and what each received."""

    def __init__(self) -> None:
        self.heard: list[tuple[Message, socket.socket | None]] = []
        self.dropped: list[Message] = []
        self.ends: list[str] = []
        self.drained: list[bool] = []
        self.theirs: Channel[Any] | None = None
        ours, self.raw = channel.pair()
        self.ours = Channel(
            ours,
            FROM_FRONTEND,
            self._hear,
            self.ends.append,
            dropped=self._dropped,
            drained=lambda: self.drained.append(self.ours.waits),
        )

    def listen(self) -> None:
        """Let the frontend's end read; until then it is too slow."""
        self.theirs = Channel(self.raw, TO_FRONTEND, self._hear, self.ends.append, sockets=True)

    def _hear(self, message: Message, sock: socket.socket | None) -> None:
        self.heard.append((message, sock))
        if len(self.heard) > _OPEN and (old := self.heard[-_OPEN][1]):
            old.close()

    def _dropped(self, message: Message) -> None:
        self.dropped.append(message)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    def close(self) -> None:
        self.ours.close()
        if self.theirs:
            self.theirs.close()
        self.raw.close()
        for _, sock in self.heard:
            if sock:
                sock.close()


def play(part: Callable[[Ends], Awaitable[None]]) -> None:
    """Run a part, and check that no descriptor is left open."""
    before = open_files()

    async def main() -> None:
        inside = open_files()
        ends = Ends()
        try:
            await part(ends)
        finally:
            ends.close()
        assert open_files() == inside

    asyncio.run(main())
    assert open_files() == before


def test_messages_go_both_ways_in_order() -> None:
    async def part(ends: Ends) -> None:
        ends.listen()
        assert ends.theirs
        said: list[Message] = [Ping(turn) for turn in range(200)]
        for message in said:
            ends.ours.send(message)
        await ends.until(lambda: len(ends.heard) == 200)
        assert [message for message, _ in ends.heard] == said
        ends.theirs.send(Pong(1))
        await ends.until(lambda: len(ends.heard) == 201)
        assert not ends.ends

    play(part)


def test_a_socket_goes_with_the_message_that_wants_it() -> None:
    async def part(ends: Ends) -> None:
        ends.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            where = sock.getsockname()
            ends.ours.send(Bind(1, 4), [sock.fileno()])
            ends.ours.send(send(1, "dns"), [sock.fileno()])
            ends.ours.send(send(2, "icmp"), [sock.fileno()])  # wants none
            ends.ours.send(Unbind(1), [sock.fileno()])
            ends.ours.send(Bind(2, 4), [sock.fileno(), sock.fileno()])  # one more than it wants
        with open("/dev/null", "rb") as null:
            ends.ours.send(Bind(3, 4), [null.fileno()])
        ends.ours.send(Bind(4, 4))
        await ends.until(lambda: len(ends.heard) == 7)
        got = [sock.getsockname() if sock else None for _, sock in ends.heard]
        assert got == [where, where, None, None, where, None, None]
        assert all(sock.gettimeout() == 0 for _, sock in ends.heard if sock)

    play(part)


def test_the_engine_takes_no_descriptor() -> None:
    async def part(ends: Ends) -> None:
        before = open_files()
        socket.send_fds(ends.raw, [encode(Pong(1))], [0, 0, 0])
        await ends.until(lambda: ends.heard)
        assert ends.heard == [(Pong(1), None)]
        assert open_files() == before

    play(part)


def test_a_slow_peer_costs_the_oldest_probes() -> None:
    async def part(ends: Ends) -> None:
        ends.ours.send(Unbind(7))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock, ExitStack() as stack:
            for _ in range(2 * _OPEN):  # of the peer's, which isn't a process of its own here
                stack.callback(os.close, os.dup(sock.fileno()))
            for seq in range(2 * QUEUE + 1000):
                ends.ours.send(send(seq, "tcp"), [sock.fileno()])
        ends.ours.send(Unbind(8))
        assert ends.ours.drops == len(ends.dropped) > 0
        ends.listen()
        await ends.until(lambda: ends.heard and ends.heard[-1][0] == Unbind(8))
        told = [message for message, _ in ends.heard]
        assert told[0] == Unbind(7)
        arrived = [message.seq for message in told if isinstance(message, Send)]
        dropped = [message.seq for message in ends.dropped if isinstance(message, Send)]
        assert sorted(arrived + dropped) == list(range(2 * QUEUE + 1000))
        assert arrived == sorted(arrived)
        assert dropped == list(range(dropped[0], dropped[-1] + 1))  # the oldest that waited
        assert arrived[-1] == 2 * QUEUE + 999
        assert all(sock for message, sock in ends.heard if isinstance(message, Send))
        ends.ours.send(Ping(1))  # all is as before
        await ends.until(lambda: ends.heard[-1][0] == Ping(1))

    play(part)


def test_a_peer_that_reads_nothing_at_all_is_given_up() -> None:
    async def part(ends: Ends) -> None:
        turns = 0
        while not ends.ends:
            ends.ours.send(Ping(turns))
            turns += 1
            assert turns < 100_000
        assert ends.ends == ["it doesn't read its messages"]
        ends.ours.send(Ping(1))  # to nobody
        assert turns > QUEUE

    play(part)


def test_what_lasts_waits_for_a_slow_peer_however_much_it_is() -> None:
    async def part(ends: Ends) -> None:
        for token in range(10 * QUEUE):
            ends.ours.send(Ping(token))
        assert ends.ours.waits
        assert not ends.drained
        ends.listen()
        await ends.until(lambda: len(ends.heard) == 10 * QUEUE)
        assert [message for message, _ in ends.heard] == [Ping(n) for n in range(10 * QUEUE)]
        assert ends.drained == [False], "once, when nothing waits any more"
        assert not ends.ends
        assert not ends.dropped

    play(part)


def test_the_end_of_the_peer_is_told_once() -> None:
    async def part(ends: Ends) -> None:
        ends.raw.close()
        await ends.until(lambda: ends.ends)
        ends.ours.send(Ping(1))
        await asyncio.sleep(0)
        assert ends.ends == [""]

    play(part)


@pytest.mark.parametrize("speaks", [False, True])
def test_the_last_words_of_a_peer_are_heard(speaks: bool) -> None:
    """Though it has ended the channel, with messages unread, before we read or while we send."""

    async def part(ends: Ends) -> None:
        ends.listen()
        assert ends.theirs
        ends.theirs.send(Pong(1))
        ends.ours.send(Ping(7))
        ends.ours.close()
        if speaks:
            ends.theirs.send(Pong(2))
        await ends.until(lambda: ends.ends)
        assert ends.heard == [(Ping(7), None)]
        assert ends.ends == [""]

    play(part)


def test_a_peer_that_is_gone_when_we_speak() -> None:
    async def part(ends: Ends) -> None:
        ends.raw.close()
        ends.ours.send(Ping(1))
        assert ends.ends == [""]
        await asyncio.sleep(0)
        assert ends.ends == [""]

    play(part)


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"garbage", "not JSON"),
        (encode(Ping(1)), "of unknown type"),  # the wrong way round
        (b"{}".ljust(MAX_BYTES + 100), f"more than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_message_ends_it(packet: bytes, why: str) -> None:
    async def part(ends: Ends) -> None:
        ends.raw.send(encode(Pong(1)))
        ends.raw.send(packet)
        ends.raw.send(encode(Pong(2)))
        await ends.until(lambda: ends.ends)
        assert ends.ends == [f"it sent an invalid message: {why}"]
        assert ends.heard == [(Pong(1), None)]

    play(part)


def test_closing_is_silent() -> None:
    async def part(ends: Ends) -> None:
        ends.listen()
        ends.ours.close()
        await ends.until(lambda: ends.ends)
        assert ends.ends == [""]  # the other end's
        ends.ours.close()

    play(part)

"""ICMP errors of UDP sockets: those that nobody waits for keep nobody busy."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest

from ifdefault.frontend import icmp_errors


def test_an_error_that_send_was_told_of_does_not_wake_the_loop_for_ever() -> None:
    async def wait(sock: socket.socket) -> bytes:
        async with asyncio.timeout(0.05):
            return await icmp_errors.receive(sock, b"12query", lambda message: message)

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed,
    ):
        closed.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        icmp_errors.enable(sock)
        sock.connect(closed.getsockname())
        closed.close()
        sock.send(b"another query")
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(5000)
        with pytest.raises(ConnectionRefusedError):
            sock.send(b"12query")
        with pytest.raises(TimeoutError):
            asyncio.run(wait(sock))
        assert not poll.poll(0)

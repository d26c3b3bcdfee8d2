"""TCP connections of the DNS server, as far as they need no network."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ifdefault.frontend.server import tcp
from ifdefault.frontend.server.tcp import TcpServer

_ROOM = 10


@contextmanager
def few_descriptors() -> Iterator[None]:
    """This process may open only a few more."""
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    free = [number for number in range(max(used) + _ROOM + 2) if number not in used]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[_ROOM], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def listener() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.setblocking(False)
    return sock


def test_a_host_without_descriptors() -> None:
    """The longest idle connections are closed, without a busy loop."""

    async def main() -> None:
        served = TcpServer(lambda query, client, uplink: (query[::-1],))
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            sock = stack.enter_context(listener())
            place = sock.getsockname()
            for _ in range(60):
                stack.enter_context(socket.create_connection(place))
            last = stack.enter_context(socket.create_connection(place))
            last.setblocking(False)
            last.send(b"\0\3abc")
            with few_descriptors():
                served.listen(sock, lambda _: "isp-a")
                start_s, before_s = time.monotonic(), time.process_time()
                async with asyncio.timeout(20):
                    assert await loop.sock_recv(last, 10) == b"\0\3cba"
                busy = (time.process_time() - before_s) / (time.monotonic() - start_s)
                assert busy < 0.5
                assert 0 < len(served) <= _ROOM
            served.close()

    asyncio.run(main())


def test_the_more_there_are_the_sooner_they_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An active connection stays open, an idle one doesn't."""

    async def main() -> None:
        served = TcpServer(lambda query, client, uplink: (query,))
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            sock = stack.enter_context(listener())
            served.listen(sock, lambda _: "isp-a")
            idle, live = [
                stack.enter_context(socket.create_connection(sock.getsockname())) for _ in range(2)
            ]
            for each in (idle, live):
                each.setblocking(False)
            start_s = loop.time()
            ended = asyncio.create_task(loop.sock_recv(idle, 10))
            async with asyncio.timeout(20):
                while not ended.done():
                    await loop.sock_sendall(live, b"\0\1x")
                    assert await loop.sock_recv(live, 10) == b"\0\1x"
                    await asyncio.sleep(0.05)
            assert await ended == b""
            assert loop.time() - start_s < tcp.IDLE_S / 2
            assert len(served) == 1
        served.close()

    monkeypatch.setattr(tcp, "MOST", 2)
    asyncio.run(main())

"""A query that the DNS server can't bear costs that query alone."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from ifdefault.frontend.server.udp import UdpServer

ONE, SEVERAL = ((0, "isp-a"),), ((1, "isp-a"), (2, "isp-b"))


class Faulty:
    def udp(self, query: bytes, client: str, uplink: str, now: float) -> bytes:
        return {b"good": b"answer"}[query]

    def tcp(self, query: bytes, client: str, uplink: str, now: float) -> tuple[bytes, ...]:
        return ({b"good": b"answer"}[query],)


@pytest.mark.parametrize("arrivals", [ONE, SEVERAL])
def test_over_udp(arrivals: tuple[tuple[int, str], ...], caplog: pytest.LogCaptureFixture) -> None:
    async def serve() -> bytes:
        server = UdpServer(lambda packet, client: None)
        server.answer(Faulty())
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        listener.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(listener.getsockname())
            client.setblocking(False)
            for query in (b"bad", b"bad", b"good"):
                client.send(query)
            server.listen(1, "udp", listener, arrivals)
            answer = await asyncio.get_running_loop().sock_recv(client, 512)
        server.unlisten(1)
        return answer

    assert asyncio.run(asyncio.wait_for(serve(), 5)) == b"answer"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) <= 1, "once for each place"


def test_over_tcp() -> None:
    async def serve() -> tuple[bytes, bytes]:
        loop = asyncio.get_running_loop()
        server = UdpServer(lambda packet, client: None)
        server.answer(Faulty())
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        server.listen(1, "tcp", listener, ONE)
        answers = []
        for query in (b"bad", b"good"):
            with socket.socket() as client:
                client.setblocking(False)
                await loop.sock_connect(client, listener.getsockname())
                await loop.sock_sendall(client, len(query).to_bytes(2, "big") + query)
                answers.append(await loop.sock_recv(client, 512))
        server.unlisten(1)
        return answers[0], answers[1]

    assert asyncio.run(asyncio.wait_for(serve(), 5)) == (b"", b"\0\6answer")

"""HTTP/3 requests with aioquic, which is imported only where QUIC is asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent

SERVER_NAME = "www.example"


class _Client(QuicConnectionProtocol):
    def __init__(self, connection: QuicConnection) -> None:
        super().__init__(connection)
        self._http = H3Connection(connection)
        self._statuses: dict[int, asyncio.Future[int]] = {}
        self.body = b""
        self.ended = asyncio.Event()  # an answer is complete

    def request(self) -> asyncio.Future[int]:
        """Send `GET /`; the future is its status."""
        stream = self._quic.get_next_available_stream_id()
        self._statuses[stream] = asyncio.get_running_loop().create_future()
        head = {":method": "GET", ":scheme": "https", ":authority": SERVER_NAME, ":path": "/"}
        self._http.send_headers(stream, [(k.encode(), v.encode()) for k, v in head.items()], True)
        self.transmit()
        return self._statuses[stream]

    def quic_event_received(self, event: QuicEvent) -> None:
        for answer in self._http.handle_event(event):
            if isinstance(answer, HeadersReceived):
                status = self._statuses.pop(answer.stream_id, None)
                if status and not status.done():
                    status.set_result(int(dict(answer.headers)[b":status"]))
            if isinstance(answer, DataReceived):
                self.body += answer.data
            if isinstance(answer, HeadersReceived | DataReceived) and answer.stream_ended:
                self.ended.set()


@asynccontextmanager
async def connected(target: str, port: int, source: str = "") -> AsyncIterator[_Client]:
    """A connection for a block; the certificate is the lab's own and isn't verified."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        server_name=SERVER_NAME,
        verify_mode=ssl.CERT_NONE,
    )
    loop = asyncio.get_running_loop()
    local = (source or ("::" if ":" in target else "0.0.0.0"), 0)
    transport, client = await loop.create_datagram_endpoint(
        lambda: _Client(QuicConnection(configuration=configuration)), local_addr=local
    )
    try:
        # aioquic compares this with the peer of the answers, which has four parts for IPv6
        client.connect((target, port, 0, 0) if ":" in target else (target, port))
        await client.wait_connected()
        yield client
    finally:
        client.close()
        transport.close()


async def get(target: str, port: int, source: str = "") -> int:
    """Return the status of one `GET /` over a connection of its own."""
    async with connected(target, port, source) as client:
        return await client.request()


async def read(target: str, port: int, source: str = "") -> str:
    """Return the body of one `GET /` over a connection of its own."""
    async with connected(target, port, source) as client:
        if (status := await client.request()) != 200:
            raise OSError(f"unexpected status {status}")
        await client.ended.wait()
        return client.body.decode().strip()

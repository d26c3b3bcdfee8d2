"""One HTTP/3 request with aioquic, which is imported only where QUIC is asked for."""

from __future__ import annotations

import asyncio
import ssl

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent

SERVER_NAME = "www.example"


class _Client(QuicConnectionProtocol):
    def __init__(self, connection: QuicConnection) -> None:
        super().__init__(connection)
        self._http = H3Connection(connection)
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def request(self) -> None:
        stream = self._quic.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "https", ":authority": SERVER_NAME, ":path": "/"}
        self._http.send_headers(stream, [(k.encode(), v.encode()) for k, v in head.items()], True)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        for answer in self._http.handle_event(event):
            if isinstance(answer, HeadersReceived) and not self.status.done():
                self.status.set_result(int(dict(answer.headers)[b":status"]))


async def get(target: str, port: int, source: str = "") -> int:
    """Return the status of `GET /` by HTTP/3; the certificate is the lab's own, nobody knows it."""
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
        # as the socket will tell it of the answers: aioquic compares, and IPv6 has four parts
        client.connect((target, port, 0, 0) if ":" in target else (target, port))
        await client.wait_connected()
        client.request()
        return await client.status
    finally:
        client.close()
        transport.close()

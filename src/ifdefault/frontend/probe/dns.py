"""DNS probes: does a server answer a query over UDP?

Rules: any well-formed response to our query counts, whatever its code, since it proves that the
path works. Other packets are ignored.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time

from ifdefault.dns import client
from ifdefault.dns.wire import NOERROR, NXDOMAIN
from ifdefault.frontend.probe.outcome import (
    ProbeError,
    ProbeOutcome,
    local,
    raise_error,
    us_since,
    want_errors,
)

_MOST_BYTES = 4096


async def probe(sock: socket.socket, address: str, port: int, name: str) -> ProbeOutcome:
    query = build(int.from_bytes(os.urandom(2), "big"), name)
    start_ns = time.monotonic_ns()
    try:
        want_errors(sock)
        sock.connect((address, port))
        sock.send(query)
    except OSError as error:
        return local(error)
    loop = asyncio.get_running_loop()
    while True:
        try:
            response = await loop.sock_recv(sock, _MOST_BYTES)
        except OSError as error:
            raise_error(sock, error.errno or errno.EIO, address)
            return ProbeOutcome("answered", us_since(start_ns), "port closed")
        if (code := client.read_code(response, query)) is not None:
            refusal = client.code_name(code) if code not in (NOERROR, NXDOMAIN) else ""
            return ProbeOutcome("answered", us_since(start_ns), refusal)


def build(number: int, name: str) -> bytes:
    """A query for the address of a name, or for the root's servers."""
    try:
        return client.query(number, name, "A" if name else "NS", recurse=True, edns=False)
    except ValueError as error:
        raise ProbeError("local", str(error)) from None

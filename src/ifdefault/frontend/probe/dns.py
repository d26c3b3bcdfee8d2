"""DNS probes: does a server answer a query over UDP?

Rules: any well-formed response to our query counts, whatever its code, since it proves that the
path works. Other packets are ignored. An ICMP error proves nothing, even if it seems to come from
the target: if it quotes our query, the probe has failed.
"""

from __future__ import annotations

import os
import socket
import time
from functools import partial

from ifdefault.dns import client
from ifdefault.dns.wire import NOERROR, NXDOMAIN
from ifdefault.frontend import icmp_errors
from ifdefault.frontend.probe.outcome import ProbeError, ProbeOutcome, local, us_since, words


async def probe(sock: socket.socket, address: str, port: int, name: str) -> ProbeOutcome:
    query = build(int.from_bytes(os.urandom(2), "big"), name)
    start_ns = time.monotonic_ns()
    try:
        icmp_errors.enable(sock)
        sock.connect((address, port))
        sock.send(query)
    except OSError as error:
        return local(error)
    try:
        code = await icmp_errors.receive(sock, query, partial(client.read_code, request=query))
    except icmp_errors.IcmpError as error:
        if error.sender == address:
            raise ProbeError("wrong", "port closed") from None
        raise ProbeError("lost", f"{words(error.number)} (from {error.sender})") from None
    refusal = client.code_name(code) if code not in (NOERROR, NXDOMAIN) else ""
    return ProbeOutcome("answered", us_since(start_ns), refusal)


def build(number: int, name: str) -> bytes:
    """A query for the address of a name, or for the root's servers."""
    try:
        return client.query(number, name, "A" if name else "NS", recurse=True, edns=False)
    except ValueError as error:
        raise ProbeError("local", str(error)) from None

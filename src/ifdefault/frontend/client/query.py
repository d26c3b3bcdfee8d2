"""DNS: ask a server, over UDP, for addresses, name servers or a serial.

Rules: a packet that isn't the answer is passed over, and waited on; a lost one is asked for again.
What a server can't or won't say is a `NoReply`, in its own words.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass

from ifdefault.dns import client
from ifdefault.dns.wire import NOERROR, NXDOMAIN, WireError
from ifdefault.frontend.probe.outcome import words

WITHIN_S = 2.0
_AGAIN_S = (0.5, 0.6)  # after so long it is asked again; the rest is the last one's
_MOST_BYTES = 4096


class NoReply(Exception):
    """What was asked for isn't known, or wasn't done; the text says whose word that is."""


@dataclass(frozen=True, slots=True)
class Said:
    texts: tuple[str, ...]
    ttl: int


async def ask(
    sock: socket.socket, address: str, port: int, name: str, wanted: str, *, recurse: bool
) -> Said:
    """Nothing there, or no such name, is () . Of a server that neither holds the zone nor knows
    the answer it is told that it is lame."""
    query = client.query(number(), name, wanted, recurse=recurse)
    try:
        async with asyncio.timeout(WITHIN_S):
            answer = await _exchange(sock, address, port, query)
    except TimeoutError:
        raise NoReply(f"{address}: no answer in {WITHIN_S:g} s") from None
    except OSError as error:
        raise NoReply(f"{address}: {words(error.errno)}") from None
    except WireError as error:
        raise NoReply(f"{address}: its answer can't be read: {error}") from None
    if answer.code not in (NOERROR, NXDOMAIN):
        raise NoReply(f"{address} refuses: {client.code_name(answer.code)}")
    if answer.truncated:
        raise NoReply(f"{address}: its answer doesn't fit into UDP")
    if not (recurse or answer.authoritative or answer.texts):
        raise NoReply(f"{address} refuses: it isn't authoritative")
    return Said(answer.texts, answer.ttl)


def number() -> int:
    """What nobody can guess who hasn't seen the query."""
    return int.from_bytes(os.urandom(2), "big")


async def _exchange(sock: socket.socket, address: str, port: int, query: bytes) -> client.Response:
    loop = asyncio.get_running_loop()
    sock.connect((address, port))
    for patience_s in (*_AGAIN_S, None):
        sock.send(query)
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    message = await loop.sock_recv(sock, _MOST_BYTES)
                    if (answer := client.read_answer(message, query)) is not None:
                        return answer
        except TimeoutError:
            continue
    raise TimeoutError

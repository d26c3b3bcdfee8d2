"""DNS queries over UDP, for addresses, name servers or a serial.

Rules: packets that aren't the response are ignored; the query is repeated if there is none. A
failure is a `NoReply` that names the server and its reason.
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
_REPEAT_S = (0.5, 0.6)  # after these times it is repeated; the last has the rest of WITHIN_S
_MOST_BYTES = 4096


class NoReply(Exception):
    """A request failed; the text says who reports it, and why."""


@dataclass(frozen=True, slots=True)
class Answer:
    texts: tuple[str, ...]
    ttl: int


async def ask(
    sock: socket.socket, address: str, port: int, name: str, wanted: str, *, recurse: bool
) -> Answer:
    """The answer; empty if the name or the type doesn't exist. NoReply also if the server isn't
    authoritative and has no answer (lame)."""
    query = client.query(number(), name, wanted, recurse=recurse)
    try:
        async with asyncio.timeout(WITHIN_S):
            answer = await _exchange(sock, address, port, query)
    except TimeoutError:
        raise NoReply(f"{address}: no answer in {WITHIN_S:g} s") from None
    except OSError as error:
        raise NoReply(f"{address}: {words(error.errno)}") from None
    except WireError as error:
        raise NoReply(f"{address}: malformed response: {error}") from None
    if answer.code not in (NOERROR, NXDOMAIN):
        raise NoReply(f"{address} refuses: {client.code_name(answer.code)}")
    if answer.truncated:
        raise NoReply(f"{address}: truncated response")
    if not (recurse or answer.authoritative or answer.texts):
        raise NoReply(f"{address} refuses: it is not authoritative")
    return Answer(answer.texts, answer.ttl)


def number() -> int:
    """A random id, which can't be guessed without seeing the query."""
    return int.from_bytes(os.urandom(2), "big")


async def _exchange(sock: socket.socket, address: str, port: int, query: bytes) -> client.Response:
    loop = asyncio.get_running_loop()
    sock.connect((address, port))
    for timeout_s in (*_REPEAT_S, None):
        sock.send(query)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await loop.sock_recv(sock, _MOST_BYTES)
                    if (answer := client.read_answer(message, query)) is not None:
                        return answer
        except TimeoutError:
            continue
    raise TimeoutError

"""DNS queries over UDP, for addresses, name servers or a serial, signed if there is a key.

Rules: packets that aren't the response are ignored; the query is repeated if there is none. The
letter case of the name is random, and the response must have the same: who hasn't seen the query
has to guess that, too, besides ID and port. A failure is a `NoReply` that names the server and its
reason.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass

from ifdefault.dns import client, wire
from ifdefault.dns.wire import NOERROR, NXDOMAIN, WireError
from ifdefault.frontend import icmp_errors
from ifdefault.frontend.client.no_reply import NoReply
from ifdefault.frontend.client.signed import Request
from ifdefault.frontend.probe.outcome import words

WITHIN_S = 2.0
_REPEAT_S = (0.5, 0.6)  # after these times it is repeated; the last has the rest of WITHIN_S


@dataclass(frozen=True, slots=True)
class Answer:
    texts: tuple[str, ...]
    ttl: int


async def ask(
    sock: socket.socket,
    address: str,
    port: int,
    name: str,
    wanted: str,
    *,
    recurse: bool,
    key_path: str = "",
) -> Answer:
    """The answer; empty if the name or the type doesn't exist. NoReply also if the server isn't
    authoritative and has no answer (lame)."""
    plain = client.query(number(), name, wanted, recurse=recurse)
    plain = client.mix_case(plain, int.from_bytes(os.urandom(wire.NAME_MAX), "big"))
    request = Request(plain, address, key_path)
    try:
        async with asyncio.timeout(WITHIN_S):
            icmp_errors.enable(sock)
            sock.connect((address, port))
            response = await _exchange(sock, request)
        answer = client.read_answer(response, plain)
        assert answer is not None
        if answer.code not in (NOERROR, NXDOMAIN):
            raise request.refusal(answer.code, response)
        request.verify(response)
    except TimeoutError:
        raise NoReply(f"{address}: no answer in {WITHIN_S:g} s") from None
    except icmp_errors.IcmpError as error:
        raise NoReply(f"{address}: {words(error.number)}") from None
    except OSError as error:
        raise NoReply(f"{address}: {words(error.errno)}") from None
    except WireError as error:
        raise NoReply(f"{address}: malformed response: {error}") from None
    if answer.truncated:
        raise NoReply(f"{address}: truncated response")
    if not (recurse or answer.authoritative or answer.texts):
        raise NoReply(f"{address} refuses: it is not authoritative")
    return Answer(answer.texts, answer.ttl)


def number() -> int:
    """A random id, which can't be guessed without seeing the query."""
    return int.from_bytes(os.urandom(2), "big")


async def _exchange(sock: socket.socket, request: Request) -> bytes:
    def accept(message: bytes) -> bytes | None:
        return message if client.read_code(message, request.plain) is not None else None

    sock.send(request.message)
    for timeout_s in (*_REPEAT_S, None):
        try:
            async with asyncio.timeout(timeout_s):
                return await icmp_errors.receive(sock, request.message, accept)
        except TimeoutError:
            _repeat(sock, request.message)
    raise TimeoutError


def _repeat(sock: socket.socket, message: bytes) -> None:
    try:
        sock.send(message)
    except OSError:  # an ICMP error that came just now, from anybody; it is told once
        with suppress(OSError):
            sock.send(message)

"""DNS: does a server answer a query over UDP?

Rules: any well-formed response to our question counts, whatever its code: the path works. What
isn't one is passed over, and waited on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time

from ifdefault.frontend.probe.outcome import (
    Answer,
    Fault,
    local,
    raise_error,
    us_since,
    want_errors,
)

_HEADER = struct.Struct("!6H")  # RFC 1035, 4.1.1
_RESPONSE, _OPCODE, _RECURSION_DESIRED = 0x8000, 0x7800, 0x0100
_A, _NS, _IN = 1, 2, 1
_CODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
_MOST_BYTES = 4096


async def probe(sock: socket.socket, address: str, port: int, name: str) -> Answer:
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
            return Answer("answered", us_since(start_ns), "port closed")
        if (code := read(query, response)) is not None:
            return Answer("answered", us_since(start_ns), _CODES.get(code, ""))


def build(number: int, name: str) -> bytes:
    """A query for the address of a name, or for the root's servers."""
    labels = [label.encode("ascii") for label in name.split(".") if label]
    if any(len(label) > 63 for label in labels):
        raise Fault("local", f"no name to ask for: {name}")
    question = b"".join(bytes([len(label)]) + label for label in labels)
    head = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
    return head + question + struct.pack("!xHH", _A if labels else _NS, _IN)


def read(query: bytes, response: bytes) -> int | None:
    """The code of a response to this query; None if it is none."""
    if len(response) < _HEADER.size:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(response)
    if number != int.from_bytes(query[:2], "big") or flags & (_RESPONSE | _OPCODE) != _RESPONSE:
        return None
    code: int = flags & 15
    asked = query[_HEADER.size :]
    told = response[_HEADER.size :][: len(asked)]
    # names are compared without regard to case; length bytes and types here are below letters
    same = questions == 1 and told.lower() == asked.lower()
    # who can't read a question, or won't, may leave it out
    return code if same or (questions == 0 and code) else None

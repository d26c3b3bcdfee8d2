"""HTTP(S): ask a web server for a text that is one address, such as the one it sees us by.

Rules: as in `http`; the response is read whole, within 8 KiB, and must be just that text. It is
asked for in HTTP/1.0, since then no server cuts it into chunks.
"""

from __future__ import annotations

import asyncio
import re
import socket

from ifdefault.frontend.client.query import NoReply
from ifdefault.frontend.probe import http
from ifdefault.frontend.probe.outcome import ProbeError, words

WITHIN_S = 10.0
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?![^ \r])")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


async def fetch(
    sock: socket.socket, address: str, port: int, host: str, path: str, *, secure: bool
) -> str:
    """The address that a response consists of; else NoReply tells why not."""
    try:
        async with asyncio.timeout(WITHIN_S):
            response = await http.get(
                sock, address, port, host, path, _whole, secure=secure, version="1.0"
            )
        return read(response)
    except TimeoutError:
        raise NoReply(f"{host}: no answer in {WITHIN_S:g} s") from None
    except ProbeError as fault:
        whose = "this host" if fault.answer.verdict == "local" else host
        raise NoReply(f"{whose}: {fault.answer.detail}") from None
    except OSError as error:
        raise NoReply(f"{host}: {words(error.errno)}") from None
    except ValueError as error:  # what ssl thinks of a name
        raise NoReply(f"this host: {error}") from None


def read(response: bytes) -> str:
    """The address in a response's body, in canonical form; ProbeError if it holds anything else."""
    head, end, body = response.partition(b"\r\n\r\n")
    status = _STATUS.match(head)
    if status is None or status[1] != b"200":
        raise ProbeError("wrong", f"status {status[1].decode()}" if status else "not HTTP")
    length = _LENGTH.search(head)
    # a part of an address may be one, too
    if not end or (length and int(length[1]) != len(body)):
        raise ProbeError("wrong", "its answer is cut short")
    text = body.decode("ascii", "replace").strip()
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise ProbeError("wrong", f'its answer is no address: "{text[:40]}"') from None


async def _whole(stream: http.Plain) -> bytes:
    got = b""
    while data := await stream.receive():
        got += data
        if len(got) > http.MOST_BYTES:
            raise ProbeError("wrong", f"its answer has more than {http.MOST_BYTES} bytes")
    return got

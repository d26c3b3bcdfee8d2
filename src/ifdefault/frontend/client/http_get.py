"""HTTP(S): get an address from a web server, such as the public address it sees this host by.

Rules: as in `http`; the body, of at most 8 KiB, must consist of one address. The request is
HTTP/1.0, so that servers don't use chunked encoding.
"""

from __future__ import annotations

import asyncio
import re
import socket

from ifdefault.frontend.client.no_reply import NoReply
from ifdefault.frontend.probe import http
from ifdefault.frontend.probe.outcome import ProbeError, words

WITHIN_S = 10.0
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?![^ \r])")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,18})(?![0-9])", re.IGNORECASE)


async def fetch(
    sock: socket.socket, address: str, port: int, host: str, path: str, *, secure: bool
) -> str:
    """The address in the response; NoReply says why there is none."""
    try:
        async with asyncio.timeout(WITHIN_S):
            response = await http.get(
                sock, address, port, host, path, _read_all, secure=secure, version="1.0"
            )
        return read(response)
    except TimeoutError:
        raise NoReply(f"{host}: no answer in {WITHIN_S:g} s") from None
    except ProbeError as error:
        where = "this host" if error.outcome.verdict == "local" else host
        raise NoReply(f"{where}: {error.outcome.detail}") from None
    except OSError as error:
        raise NoReply(f"{host}: {words(error.errno)}") from None
    except ValueError as error:  # ssl rejects the name
        raise NoReply(f"this host: {error}") from None


def read(response: bytes) -> str:
    """The address in a response's body, in canonical form; ProbeError if it is anything else."""
    head, end, body = response.partition(b"\r\n\r\n")
    status = _STATUS.match(head)
    if status is None or status[1] != b"200":
        code = status[1].decode("ascii", "replace") if status else ""
        raise ProbeError("wrong", f"status {code}" if code else "not HTTP")
    length = _LENGTH.search(head)
    # a truncated address may be a valid one
    if not end or (length and int(length[1]) != len(body)):
        raise ProbeError("wrong", "truncated response")
    text = body.decode("ascii", "replace").strip()
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        raise ProbeError("wrong", f'the response is not an address: "{text[:40]}"') from None


async def _read_all(stream: http.Plain) -> bytes:
    response = b""
    while data := await stream.receive():
        response += data
        if len(response) > http.MOST_BYTES:
            raise ProbeError("wrong", f"the response is longer than {http.MOST_BYTES} bytes")
    return response

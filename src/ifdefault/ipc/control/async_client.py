"""The client of the control sockets for processes that wait for other things too (asyncio).

Rules: it asks at the socket of all users, a connection for each request. Errors are those of
`client.ask`.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

from ifdefault.ipc.control.client import (
    LONGEST_REPLY,
    OPEN_SOCKET,
    no_answer,
    no_connection,
    not_running,
    read_reply,
)
from ifdefault.ipc.control.protocol import Asks, R, encode_request

_RETRY_S = 0.01  # many others connect: who waits longer seldom gets in


async def ask(run_dir: Path, request: Asks[R], timeout_s: float = 10.0) -> R:
    """Send a request; return the engine's reply."""
    path = str(run_dir / OPEN_SOCKET)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            sock = await _connected(path)
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LONGEST_REPLY)
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have refused it already
                writer.write(encode_request(request))
                await writer.drain()
            line = await reader.readline()
    except (TimeoutError, BlockingIOError, ValueError):  # ValueError: longer than the limit
        raise no_answer(path, timeout_s) from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise not_running() from None
    except OSError as error:
        raise no_connection(path, error) from error
    finally:
        if writer is not None:
            writer.close()
    return read_reply(path, request, line)


async def _connected(path: str) -> socket.socket:
    """A socket that is connected, as soon as the backlog has room. asyncio doesn't wait for that,
    and takes such a socket for a connected one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_RETRY_S)
            else:
                return sock
    except BaseException:
        sock.close()
        raise

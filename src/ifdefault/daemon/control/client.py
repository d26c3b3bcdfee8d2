"""Asking the engine, over its control socket.

Rules: blocking, for the command line; asyncio isn't loaded here, it would take longer than the
answer, nor are requests and replies before there is somebody to ask. What can't be asked is a
HostError, NotRunning where there is no engine.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifdefault.model.errors import ConfigError, HostError, Problem, reason

if TYPE_CHECKING:
    from ifdefault.daemon.control.protocol import Asks, R

SOCKET = "control.sock"
LONGEST_PATH = 107  # sun_path, but for its final zero
LONGEST_REPLY = 16 * 1024 * 1024
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid; unix(7)


class NotRunning(HostError):
    """No engine listens in this run directory."""


def ask(run_dir: Path, request: Asks[R], timeout_s: float = 30.0) -> R:
    """The engine's reply; NotRunning where there is no engine, its refusal as our own error."""
    from ifdefault.daemon.control.protocol import Refusal, Request, decode_reply
    from ifdefault.ipc import codec

    path = str(run_dir / SOCKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            _connect(sock, path)
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have refused already
                sock.sendall(codec.write(codec.encoder(Request)(request)) + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline(LONGEST_REPLY)
        except TimeoutError:
            what = f"the daemon doesn't answer in {timeout_s:g} s"
            raise HostError(Problem(path, what, "see its log")) from None
        except OSError as error:
            what = f"the daemon can't be asked: {reason(error)}"
            raise HostError(Problem(path, what)) from error
    if not line:
        raise HostError(Problem(path, "the daemon hung up", "see its log"))
    try:
        reply = decode_reply(request, line)
    except codec.DecodeError as error:
        what = f"the daemon's answer makes no sense: {error}"
        remedy = "restart it, it may be of another version"
        raise HostError(Problem(path, what, remedy)) from None
    if isinstance(reply, Refusal):
        kind = ConfigError if reply.exit_status == ConfigError.exit_status else HostError
        raise kind(*reply.problems)
    return reply


def _connect(sock: socket.socket, path: str) -> None:
    try:
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise FileNotFoundError  # there can't be one
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        remedy = "start it: systemctl start ifdefault, or ifdefault run"
        raise NotRunning(Problem("", "no daemon runs", remedy)) from None


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says."""

    pid: int
    uid: int
    gid: int


def listener(path: Path) -> str:
    """The pid of who listens, "" where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return ""
        except OSError:
            return "unknown"  # EAGAIN: it has more clients than it takes
        return str(credentials(sock).pid)


def credentials(sock: Any) -> Peer:
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(told))

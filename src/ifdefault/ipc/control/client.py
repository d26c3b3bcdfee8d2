"""The client of the control sockets.

Rules: blocking, for the command line. To start fast it doesn't import asyncio, and imports the
protocol only when a request is sent. Failures are HostErrors, NotRunning if there is no engine.
Root uses a socket that only root can connect to, and everybody else another one: what they do there
doesn't keep root waiting.
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
    from ifdefault.ipc.control.protocol import Asks, R

SOCKET, OPEN_SOCKET = "control.sock", "status.sock"  # for root and the daemon's user; for all users
LONGEST_PATH = 107  # sun_path, without its final NUL
LONGEST_REPLY = 16 * 1024 * 1024
_TIMEVAL = struct.Struct("ll")
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid; unix(7)


class NotRunning(HostError):
    """No engine is running in this run directory."""


class Closed(HostError):
    """The engine ended, or closed the connection, without a reply."""


def socket_path(run_dir: Path) -> Path:
    """The socket for this user."""
    path = run_dir / SOCKET
    return path if os.access(path, os.W_OK) else run_dir / OPEN_SOCKET


def ask(run_dir: Path, request: Asks[R], timeout_s: float = 30.0) -> R:
    """Send a request; return the engine's reply. A Refusal is raised as ConfigError or HostError,
    and NotRunning if there is no engine."""
    from ifdefault.ipc.control.protocol import encode_request

    path = str(socket_path(run_dir))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            _connect(sock, path, timeout_s)
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have refused it already
                sock.sendall(encode_request(request))
            with sock.makefile("rb") as file:
                line = file.readline(LONGEST_REPLY)
        except (TimeoutError, BlockingIOError):
            raise no_answer(path, timeout_s) from None
        except OSError as error:
            raise no_connection(path, error) from error
    return read_reply(path, request, line)


def read_reply(path: str, request: Asks[R], line: bytes) -> R:
    """The engine's reply in a line that was read from a socket; errors as `ask`."""
    from ifdefault.ipc import codec
    from ifdefault.ipc.control.protocol import Refusal, decode_reply

    if not line:
        raise Closed(Problem(path, "the daemon closed the connection", "see its log"))
    try:
        reply = decode_reply(request, line)
    except codec.DecodeError as error:
        what = f"invalid answer from the daemon: {error}"
        remedy = "it may be another version, restart it: systemctl restart ifdefault"
        raise HostError(Problem(path, what, remedy)) from None
    if isinstance(reply, Refusal):
        kind = ConfigError if reply.exit_status == ConfigError.exit_status else HostError
        raise kind(*reply.problems)
    return reply


def not_running() -> NotRunning:
    remedy = "start it: systemctl start ifdefault, or ifdefault run"
    return NotRunning(Problem("", "no daemon runs", remedy))


def no_answer(path: str, timeout_s: float) -> HostError:
    return HostError(Problem(path, f"no answer from the daemon in {timeout_s:g} s", "see its log"))


def no_connection(path: str, error: OSError) -> HostError:
    if isinstance(error, ConnectionResetError):
        return Closed(Problem(path, "the daemon closed the connection", "see its log"))
    what = f"can't connect to the daemon: {reason(error)}"
    remedy = "run as root" if isinstance(error, PermissionError) else "see its log"
    return HostError(Problem(path, what, remedy))


def _connect(sock: socket.socket, path: str, timeout_s: float) -> None:
    """Raises BlockingIOError if the backlog stays full."""
    # settimeout() alone would not wait for the backlog; socket(7), SO_SNDTIMEO
    timeout = _TIMEVAL.pack(int(timeout_s), int(timeout_s % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    try:
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise FileNotFoundError  # it can't exist
        sock.connect(path)
        sock.settimeout(timeout_s)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise not_running() from None


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, according to the kernel."""

    pid: int
    uid: int
    gid: int


def listener(path: Path) -> str:
    """The pid of the process that listens on a socket, "" if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return ""
        except OSError:
            return "unknown"  # EAGAIN: its backlog is full
        return str(credentials(sock).pid)


def credentials(sock: Any) -> Peer:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(data))

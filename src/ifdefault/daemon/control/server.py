"""The server of the control socket, by which commands talk to the engine.

Rules: a request is one line of JSON, and so is its reply. Any user may read the status; changes
require root, by the peer's credentials from the kernel. Only valid requests reach the engine: an
invalid one ends its connection and affects no other. There is one engine per run directory, which
holds a lock while it runs, so that the socket of a dead engine is recognised as stale.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import stat
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, Protocol, get_args

from ifdefault.daemon.control.client import LONGEST_PATH, SOCKET, credentials, listener
from ifdefault.daemon.control.client import Peer as Peer  # for Answerers
from ifdefault.daemon.control.protocol import Events, Exec, Refusal, Reply, Request, Status
from ifdefault.host.store import private
from ifdefault.ipc import codec
from ifdefault.ipc.codec import DecodeError
from ifdefault.model.errors import HostError, IfdefaultError, Problem, reason

LOCK = "engine.lock"
MOST_CLIENTS = 32
LONGEST_REQUEST = 64 * 1024
PATIENCE_S = 5.0  # for a client to send its request, and to read its reply

_logger = logging.getLogger("ifdefault")
_decode = codec.decoder(Request)
_encode = codec.encoder(Reply)
_UNPRIVILEGED = (Status, Events, Exec)  # Exec affects the requesting process only


class Answerer(Protocol):
    async def answer(self, request: Request, peer: Peer) -> Reply:
        """Perform a request; an IfdefaultError becomes a Refusal."""


class BadRequest(HostError):
    """An invalid request."""


def parse(line: bytes) -> Request:
    """The request in a line; BadRequest says what would be valid."""
    value: Any = None
    try:
        request: Request = _decode(value := codec.read(line))
    except DecodeError as error:
        raise BadRequest(Problem("request", str(error), _remedy(value))) from None
    return request


def _remedy(value: Any) -> str:
    """What would be valid instead of a value that isn't a request."""
    kinds = {kind.__name__: kind for kind in get_args(Request)}
    if not isinstance(value, dict) or not isinstance(name := value.get(codec.TAG), str):
        return 'send {"type": "Status"}'
    if name not in kinds:
        return f"use one of {', '.join(kinds)}"
    names = [field.name for field in fields(kinds[name])]
    return f"send {name} with {', '.join(names) or 'nothing else'}"


# --- the server -------------------------------------------------------------------------------


class Control:
    """The engine's end of the socket, from `start` to `close`."""

    def __init__(self, run_dir: Path, answerer: Answerer) -> None:
        self._path = run_dir / SOCKET
        self._answerer = answerer
        self._lock: IO[str] | None = None
        self._server: asyncio.AbstractServer | None = None
        self._inode = 0
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take the lock and listen; HostError if another engine is running."""
        self._claim()
        try:
            await self._listen()
        except BaseException:
            await self.close()
            raise

    def _claim(self) -> None:
        run_dir = self._path.parent
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            raise HostError(Problem(str(run_dir), "too long for a socket", "use another --run-dir"))
        try:
            run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = private(run_dir / LOCK)
        except OSError as error:
            what = f"can't be used: {reason(error)}"
            raise HostError(Problem(str(run_dir), what, "run as root, or use --run-dir")) from error
        try:
            _acquire(lock, self._path)
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    async def _listen(self) -> None:
        """Replaces the socket of a dead engine."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise HostError(Problem(str(self._path), "is not a socket", "remove it"))
            self._path.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(self._path))
            self._path.chmod(0o666)  # any user may read the status
            self._inode = self._path.stat().st_ino
            sock.setblocking(False)
            self._server = await asyncio.start_unix_server(
                self._serve, sock=sock, limit=LONGEST_REQUEST, backlog=MOST_CLIENTS
            )
        except OSError as error:
            sock.close()
            what = f"can't be created: {reason(error)}"
            raise HostError(Problem(str(self._path), what)) from error

    async def close(self) -> None:
        """Stop listening, end all connections, and remove the socket; the lock file stays."""
        with suppress(OSError):
            if self._inode and self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._inode = 0
        if self._server:
            self._server.close()
            self._server = None
        clients = list(self._clients)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        if self._lock:
            self._lock.close()
            self._lock = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until its connection ends; no error gets out of here."""
        task = asyncio.current_task()
        assert task is not None
        try:
            if not self._inode:  # closed meanwhile
                return
            if len(self._clients) >= MOST_CLIENTS:
                what = f"{MOST_CLIENTS} other clients are connected"
                await _reply(writer, refusal(HostError(Problem("control", what, "try again"))))
                return
            self._clients.add(task)
            await self._answer_requests(reader, writer, _peer(writer))
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # disconnected, too slow, or we are closing
        except Exception:
            _logger.exception("control: internal error")
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> None:
        while True:
            try:
                line = await _request_line(reader)
                if not line:
                    return
                request = parse(line)
            except BadRequest as error:
                await _reply(writer, refusal(error))
                return
            await _reply(writer, await self._answer(request, peer))

    async def _answer(self, request: Request, peer: Peer) -> Reply:
        if not isinstance(request, _UNPRIVILEGED) and peer.uid not in (0, os.geteuid()):
            what = f"uid {peer.uid} may only read the status and events"
            return refusal(HostError(Problem("permission", what, "run as root")))
        try:
            return await self._answerer.answer(request, peer)
        except IfdefaultError as error:
            return refusal(error)
        except Exception as error:
            _logger.exception("control: internal error on %s", request)
            what = f"internal error: {type(error).__name__}: {error}".rstrip(": ")
            return refusal(HostError(Problem("the daemon", what, "see its log")))


def refusal(error: IfdefaultError) -> Refusal:
    return Refusal(error.problems, error.exit_status)


def _acquire(lock: IO[str], path: Path) -> None:
    """Take the lock. Also check that nothing listens on the socket, since the lock file may have
    been removed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid = listener(path)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
    if pid:
        remedy = "stop it first, or use another --run-dir for this one"
        raise HostError(Problem(str(path), f"another engine is running, pid {pid}", remedy))
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _peer(writer: asyncio.StreamWriter) -> Peer:
    return credentials(writer.get_extra_info("socket"))


async def _request_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, b"" at the end; BadRequest if none arrives in time, or it is too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = await reader.readline()
    except TimeoutError:
        what = f"incomplete after {PATIENCE_S:g} s"
        raise BadRequest(Problem("request", what, "send it at once")) from None
    except ValueError:
        what = f"longer than {LONGEST_REQUEST} bytes"
        raise BadRequest(Problem("request", what, "send a shorter one")) from None
    if line and not line.endswith(b"\n"):
        raise BadRequest(Problem("request", "truncated", "end it with a newline"))
    return line


async def _reply(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(codec.write(_encode(reply)) + b"\n")
    async with asyncio.timeout(PATIENCE_S):
        await writer.drain()

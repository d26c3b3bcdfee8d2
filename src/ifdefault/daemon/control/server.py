"""The control socket: who runs `ifdefault` asks the engine here, and tells it what to do.

Rules: a request is one line of JSON, and so is its reply. Anybody may look; who may change is told
by the peer's credentials, which the kernel vouches for. Nothing that a client sends, or doesn't,
reaches the engine but as a `Request`: garbage costs its sender the connection, and nobody else
anything. One engine a run directory: it holds a lock as long as it lives, so that what a dead one
left behind is known as such.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol, get_args

from ifdefault.daemon.control.client import LONGEST_PATH, SOCKET, credentials, listener
from ifdefault.daemon.control.client import Peer as Peer  # whom an Answerer is told of
from ifdefault.host.store import private
from ifdefault.model.errors import HostError, IfdefaultError, Problem, reason
from ifdefault.model.health import Forced

LOCK = "engine.lock"
MOST_CLIENTS = 32
LONGEST_REQUEST = 64 * 1024
PATIENCE_S = 5.0  # for a client to send its request, and to take its reply
MOST_EVENTS = 10_000
LONGEST_PROBATION_S = 86400

_logger = logging.getLogger("ifdefault")


# --- requests ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    pass


@dataclass(frozen=True, slots=True)
class Events:
    limit: int


@dataclass(frozen=True, slots=True)
class SetUplink:
    name: str
    state: Forced


@dataclass(frozen=True, slots=True)
class Reload:
    confirm_s: int | None  # undo after so long, unless confirmed


@dataclass(frozen=True, slots=True)
class Confirm:
    pass


@dataclass(frozen=True, slots=True)
class Down:
    pass


@dataclass(frozen=True, slots=True)
class Exec:
    """The peer, and what it starts, is to leave by an uplink from now on."""

    uplink: str
    netns: int  # the inode of the network namespace that it is in


Request = Status | Events | SetUplink | Reload | Confirm | Down | Exec
_ANYBODYS = (Status, Events, Exec)  # what a process does with itself is its own business


class Answerer(Protocol):
    async def answer(self, request: Request, peer: Peer) -> dict[str, Any]:
        """Do what is asked for; what is returned goes into the reply, an IfdefaultError as well."""


class BadRequest(HostError):
    """Not a request of ours."""


def parse(line: bytes) -> Request:
    """The request in a line; BadRequest says what would be one."""
    try:
        told = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise BadRequest(Problem("request", "not JSON", 'send {"do": "status"}')) from None
    if not isinstance(told, dict) or not isinstance(told.get("do"), str):
        raise BadRequest(Problem("request", 'says nothing to "do"', 'send {"do": "status"}'))
    form = _FORMS.get(told["do"])
    if form is None:
        what = f"{json.dumps(told['do'])[:60]} is nothing to do"
        raise BadRequest(Problem("request", what, f"use one of {', '.join(_FORMS)}"))
    make, fields = form
    values = {key: value for key, value in told.items() if key != "do"}
    if values.keys() != fields.keys() or not all(fields[k](v) for k, v in values.items()):
        takes = f"with {', '.join(fields)} as they must be" if fields else "with nothing else"
        raise BadRequest(Problem("request", "of an unknown form", f"send {told['do']} {takes}"))
    request: Request = make(**values)
    return request


def _is_limit(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST_EVENTS


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 31


def _is_inode(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 64


def _is_state(value: Any) -> bool:
    return isinstance(value, str) and value in get_args(Forced)


def _is_probation(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= LONGEST_PROBATION_S)


_FORMS: dict[str, tuple[Callable[..., Any], dict[str, Callable[[Any], bool]]]] = {
    "status": (Status, {}),
    "events": (Events, {"limit": _is_limit}),
    "uplink": (SetUplink, {"name": _is_name, "state": _is_state}),
    "reload": (Reload, {"confirm_s": _is_probation}),
    "confirm": (Confirm, {}),
    "down": (Down, {}),
    "exec": (Exec, {"uplink": _is_name, "netns": _is_inode}),
}


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
        """Be the one engine of this run directory and listen; HostError says who else is."""
        self._claim()
        try:
            await self._listen()
        except BaseException:
            await self.close()
            raise

    def _claim(self) -> None:
        run_dir = self._path.parent
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            raise HostError(
                Problem(str(run_dir), "too long for a socket", "give another --run-dir")
            )
        try:
            run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = private(run_dir / LOCK)
        except OSError as error:
            what = f"can't be used: {reason(error)}"
            raise HostError(
                Problem(str(run_dir), what, "run as root, or give --run-dir")
            ) from error
        try:
            _take(lock, self._path)
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    async def _listen(self) -> None:
        """What a dead engine left behind is replaced."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise HostError(Problem(str(self._path), "is no socket", "remove it"))
            self._path.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(self._path))
            self._path.chmod(0o666)  # anybody may look
            self._inode = self._path.stat().st_ino
            sock.setblocking(False)
            self._server = await asyncio.start_unix_server(
                self._greet, sock=sock, limit=LONGEST_REQUEST, backlog=MOST_CLIENTS
            )
        except OSError as error:
            sock.close()
            what = f"can't be made: {reason(error)}"
            raise HostError(Problem(str(self._path), what)) from error

    async def close(self) -> None:
        """Stop listening, end all conversations, and leave nothing behind but the lock's file."""
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

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its connection to its end; nothing that it does gets out of here."""
        task = asyncio.current_task()
        assert task is not None
        try:
            if not self._inode:  # we closed while it came
                return
            if len(self._clients) >= MOST_CLIENTS:
                what = f"{MOST_CLIENTS} others are asking"
                await _reply(writer, refusal(HostError(Problem("control", what, "try again"))))
                return
            self._clients.add(task)
            await self._converse(reader, writer, _peer(writer))
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # gone, or too slow, or we close
        except Exception:
            _logger.exception("control: internal error")
            writer.transport.abort()
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(
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

    async def _answer(self, request: Request, peer: Peer) -> dict[str, Any]:
        if not isinstance(request, _ANYBODYS) and peer.uid not in (0, os.geteuid()):
            what = f"uid {peer.uid} may only look"
            return refusal(HostError(Problem("permission", what, "run as root")))
        try:
            return {"ok": True, **await self._answerer.answer(request, peer)}
        except IfdefaultError as error:
            return refusal(error)
        except Exception as error:
            _logger.exception("control: internal error on %s", request)
            what = f"internal error: {type(error).__name__}: {error}".rstrip(": ")
            return refusal(HostError(Problem("the daemon", what, "its log tells more")))


def refusal(error: IfdefaultError) -> dict[str, Any]:
    """The reply that tells an error; `exit_status` is that of the command which asked."""
    problems = [asdict(problem) for problem in error.problems]
    return {"ok": False, "problems": problems, "exit_status": error.exit_status}


def _take(lock: IO[str], path: Path) -> None:
    """Hold the lock and make sure that nobody answers, whatever became of the lock's file."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid = listener(path)
    except BlockingIOError:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
    if pid:
        remedy = "stop it first, or give this one its own --run-dir"
        raise HostError(Problem(str(path), f"another engine runs, pid {pid}", remedy))
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _peer(writer: asyncio.StreamWriter) -> Peer:
    return credentials(writer.get_extra_info("socket"))


async def _request_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, b"" at the end; BadRequest where none comes in time, or it is too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = await reader.readline()
    except TimeoutError:
        what = f"nothing came in {PATIENCE_S:g} s"
        raise BadRequest(Problem("request", what, "send it in one go")) from None
    except ValueError:
        what = f"longer than {LONGEST_REQUEST} bytes"
        raise BadRequest(Problem("request", what)) from None
    if line and not line.endswith(b"\n"):
        raise BadRequest(Problem("request", "cut off", "end it with a newline"))
    return line


async def _reply(writer: asyncio.StreamWriter, reply: dict[str, Any]) -> None:
    writer.write(json.dumps(reply).encode() + b"\n")
    async with asyncio.timeout(PATIENCE_S):
        await writer.drain()

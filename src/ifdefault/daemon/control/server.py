"""The server of the control sockets, by which commands talk to the engine.

    control.sock   root, and the engine's own user    everything
    status.sock    all users                          status, counters, events, exec; uplink, with
                                                      the control token; a tenth of the time

Rules: a request is one line of JSON, and so is its reply. Changes require root, by the peer's
credentials from the kernel, or the token that root gave away: wrong ones are refused late, one
after another, so that nobody tries many, and the right one is never delayed. While `MOST_WRONG` of
a user or `MOST_WRONG_OF_ALL` wait for that, no other one is looked at: they would take all clients'
places. That root is heard doesn't depend on what others do, since they can't connect to its socket.
Replies to others may be as old as `CACHE_S`, but not older than the latest event that somebody
waits for. There is one engine per run directory, which holds a lock while it runs, so that the
sockets of a dead engine are recognised as stale.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import IO, Protocol

from ifdefault.daemon.control.endpoint import Answer, Endpoint, Wait
from ifdefault.daemon.control.parse import parse, refusal
from ifdefault.host.lock_file import private
from ifdefault.ipc import log
from ifdefault.ipc.control.client import LONGEST_PATH, OPEN_SOCKET, SOCKET, Peer, listener
from ifdefault.ipc.control.protocol import (
    Command,
    Events,
    Exec,
    Query,
    Reply,
    SetUplink,
    encode_reply,
)
from ifdefault.model.errors import HostError, IfdefaultError, Problem, internal, reason

LOCK = "engine.lock"
CACHE_S = 0.2
TOKEN_S = 1.0  # between two refusals of tokens
MOST_WRONG, MOST_WRONG_OF_ALL = 8, 64  # tokens whose refusals are due
_NEWS_S = 0.03  # events come in groups
# A program that an engine was just starting when it was killed has its files until it executes.
_EXEC_S, _RETRY_S = 2.0, 0.02
SHARE = 0.1  # of the engine's time, for users other than root


class Answerer(Protocol):
    @property
    def last(self) -> int:
        """The serial of the latest event."""

    @property
    def control_token(self) -> str:
        """What permits SetUplink to all users; "": nothing does."""

    def token_refused(self, uid: int) -> None:
        """Somebody sent another token."""

    def read(self, query: Query) -> Reply:
        """What was asked for; an IfdefaultError becomes a Refusal."""

    async def perform(self, command: Command, peer: Peer) -> Reply:
        """Perform a command; likewise."""


class Control:
    """The engine's end of the sockets, from `start` to `close`."""

    def __init__(self, run_dir: Path, answerer: Answerer) -> None:
        self._run_dir, self._answerer = run_dir, answerer
        self._lock: IO[str] | None = None
        self._cache: dict[Query, bytes] = {}
        self._cached_s = 0.0
        self._news: asyncio.TimerHandle | None = None
        self._refused_s = 0.0  # when the last wrong token is refused
        self._wrong: Counter[int] = Counter()  # tokens to be refused, by user
        # root's comes last: once that is there, both are
        self.endpoints = (
            Endpoint(run_dir / OPEN_SOCKET, 0o666, partial(self._answer, self._read_cached), SHARE),
            Endpoint(run_dir / SOCKET, 0o600, partial(self._answer, self._read)),
        )

    async def start(self) -> None:
        """Take the lock and listen; HostError if another engine is running."""
        self._claim()
        try:
            for endpoint in self.endpoints:
                endpoint.open()
        except BaseException:
            await self.close()
            raise

    def _claim(self) -> None:
        run_dir = self._run_dir
        if len(os.fsencode(run_dir / SOCKET)) > LONGEST_PATH:
            raise HostError(Problem(str(run_dir), "too long for a socket", "use another --run-dir"))
        try:
            run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = private(run_dir / LOCK)
        except OSError as error:
            what = f"can't be used: {reason(error)}"
            raise HostError(Problem(str(run_dir), what, "run as root, or use --run-dir")) from error
        try:
            _acquire(lock, run_dir / SOCKET)
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    async def close(self) -> None:
        """Stop listening, end all connections, and remove the sockets; the lock file stays."""
        self._cache.clear()
        if self._news:
            self._news.cancel()
        for endpoint in self.endpoints:
            await endpoint.close()
        if self._lock:
            self._lock.close()
            self._lock = None

    # --- requests -------------------------------------------------------------------------

    def _answer(self, read: Callable[[Query], bytes], line: bytes, peer: Peer) -> Answer:
        request = parse(line)
        if isinstance(request, Events) and request.wait_s and request.after == self._answerer.last:
            return Wait(request.after, request.wait_s, partial(read, request))
        if isinstance(request, Query):
            return read(request)
        # Exec affects the requesting process only
        if isinstance(request, Exec) or peer.uid in (0, os.geteuid()):
            return self._perform(request, peer)
        if isinstance(request, SetUplink) and request.token:
            return self._by_token(request, peer)
        what = f"uid {peer.uid} may only read the status and events, and use exec"
        return encode_reply(refusal(HostError(Problem("permission", what, "run as root"))))

    def _by_token(self, request: SetUplink, peer: Peer) -> Answer:
        token = self._answerer.control_token
        if not token:
            what, remedy = "no token permits changes", "set web.control_token_file, or run as root"
            return encode_reply(refusal(HostError(Problem("permission", what, remedy))))
        if self._wrong[peer.uid] >= MOST_WRONG or self._wrong.total() >= MOST_WRONG_OF_ALL:
            what, remedy = "too many wrong tokens", "try again in a minute, or run as root"
            return encode_reply(refusal(HostError(Problem("permission", what, remedy))))
        if compare_digest(request.token.encode(), token.encode()):
            return self._perform(request, peer)
        self._wrong[peer.uid] += 1
        return self._refuse_token(peer)

    async def _refuse_token(self, peer: Peer) -> bytes:
        now = time.monotonic()
        self._refused_s = max(now, self._refused_s) + TOKEN_S
        try:
            await asyncio.sleep(self._refused_s - now)
        finally:
            self._wrong[peer.uid] -= 1
        self._answerer.token_refused(peer.uid)
        problem = Problem("permission", "wrong token", "see web.control_token_file")
        return encode_reply(refusal(HostError(problem)))

    def news(self) -> None:
        """There is another event: answer those that wait, with others that follow at once."""
        if self._news is None:
            self._news = asyncio.get_running_loop().call_later(_NEWS_S, self._tell)

    def _tell(self) -> None:
        self._news = None
        self._cache.clear()
        for endpoint in self.endpoints:
            endpoint.news(self._answerer.last)

    def _read_cached(self, query: Query) -> bytes:
        now = time.monotonic()
        if now >= self._cached_s + CACHE_S:
            self._cache.clear()
            self._cached_s = now
        if query not in self._cache:
            self._cache[query] = self._read(query)
        return self._cache[query]

    def _read(self, query: Query) -> bytes:
        try:
            return encode_reply(self._answerer.read(query))
        except IfdefaultError as error:
            return encode_reply(refusal(error))
        except Exception as error:
            log.exception(error, f"control: {query}")
            return encode_reply(refusal(_fault(error)))

    async def _perform(self, command: Command, peer: Peer) -> bytes:
        try:
            return encode_reply(await self._answerer.perform(command, peer))
        except IfdefaultError as error:
            return encode_reply(refusal(error))
        except Exception as error:
            log.exception(error, f"control: {command}")
            return encode_reply(refusal(_fault(error)))


def _fault(error: Exception) -> HostError:
    return HostError(Problem("the daemon", internal(error), "see its log"))


def _acquire(lock: IO[str], path: Path) -> None:
    """Take the lock."""
    give_up_s = time.monotonic() + _EXEC_S
    while pid := _holder(lock, path):
        if Path(f"/proc/{pid}").exists() or time.monotonic() > give_up_s:
            remedy = "stop it first, or use another --run-dir for this one"
            raise HostError(Problem(str(path), f"another engine is running, pid {pid}", remedy))
        time.sleep(_RETRY_S)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _holder(lock: IO[str], path: Path) -> str:
    """The pid of the engine that holds the lock, "" if we do now. Also check that nothing listens
    on the socket, since the lock file may have been removed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return listener(path)
    except BlockingIOError:
        lock.seek(0)
        return lock.read().strip() or "unknown"

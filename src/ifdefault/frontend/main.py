"""The frontend: all that listens to the Internet, in a process without any right.

`python -m ifdefault.frontend.main FD UID GID`, started by the engine (`spawn`); FD is its channel.

Rules: it gives up its rights before it reads the first message, and ends when the channel does.
It decides nothing, and opens no socket to the Internet but the resolver's. What it imports it
imports before it becomes a user who may not be able to read it. Must stay small: no pydantic.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from concurrent.futures.thread import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

from ifdefault.frontend.dns_server import FaceDns
from ifdefault.frontend.probe import dns, http, tcp
from ifdefault.frontend.probe.icmp import LATE_S, Echo
from ifdefault.frontend.probe.outcome import ProbeError, ProbeOutcome, local
from ifdefault.frontend.requests import RequestRunner
from ifdefault.ipc import log, privileges
from ifdefault.ipc.channel import Channel
from ifdefault.ipc.messages import (
    MAX_ADDRESSES,
    TO_FRONTEND,
    Bind,
    Fetch,
    Listen,
    Outcome,
    Ping,
    Pong,
    Query,
    Ready,
    Resolve,
    Resolved,
    Send,
    ToFrontend,
    Unbind,
    Unlisten,
    Update,
    ZoneEnd,
    ZoneHead,
    ZoneName,
    printable,
)

_RESOLVERS, _RESOLVE_S, _NAMES = 8, 10.0, 64
_ASKS = 4096  # at once, beside ICMP; each holds a socket
_STALL_S = 0.02  # a timer that comes so late tells that we didn't run


class FrontendLoop:
    def __init__(self, sock: socket.socket) -> None:
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._channel = Channel(sock, TO_FRONTEND, self._hear, self._end, sockets=True)
        self._echoes: dict[int, Echo] = {}
        self._asks: dict[asyncio.Task[None], int] = {}  # each with its path
        self._names: set[asyncio.Task[None]] = set()
        self._resolvers = ThreadPoolExecutor(_RESOLVERS)
        self._dns = FaceDns(self._channel.send)
        self._requests = RequestRunner(self._channel.send)
        self._channel.send(Ready(os.getpid()))

    def _end(self, cause: str) -> None:
        if not self.over.done():
            self.over.set_result(cause)

    def _hear(self, message: ToFrontend, sock: socket.socket | None) -> None:
        match message:
            case Send():
                self._ask(message, sock)
            case Bind():
                self._bind(message, sock)
            case Unbind():
                self._unbind(message.path)
            case Resolve():
                self._resolve(message.host)
            case Listen() | Unlisten() | ZoneHead() | ZoneName() | ZoneEnd():
                self._dns.hear(message, sock)
            case Update() | Query() | Fetch():
                self._requests.take(message, sock)
            case Ping():
                self._channel.send(Pong(message.token))

    def _bind(self, message: Bind, sock: socket.socket | None) -> None:
        path = message.path
        if before := self._echoes.pop(path, None):
            for seq in before.close():
                self._report(path, seq, ProbeOutcome("local", 0, "bound anew"))
        if sock is not None:
            report = partial(self._report, path)
            self._echoes[path] = Echo(sock, message.family, path, report)

    def _unbind(self, path: int) -> None:
        if echo := self._echoes.pop(path, None):
            echo.close()
        for task in [task for task, its in self._asks.items() if its == path]:
            task.cancel()

    # --- asking ---------------------------------------------------------------------------

    def _report(self, path: int, seq: int, answer: ProbeOutcome) -> None:
        rtt_us, detail = min(answer.rtt_us, 3_600_000_000), printable(answer.detail)
        self._channel.send(Outcome(path, seq, answer.verdict, rtt_us, detail))

    def _ask(self, message: Send, sock: socket.socket | None) -> None:
        if message.kind == "icmp":
            if echo := self._echoes.get(message.path):
                echo.ask(message.seq, message.address, message.timeout_ms / 1000)
                return
        elif sock is not None and len(self._asks) < _ASKS:
            task = asyncio.create_task(self._judge(message, sock))
            self._asks[task] = message.path
            task.add_done_callback(self._asks.__delitem__)
            return
        if sock is not None:
            sock.close()
        self._report(message.path, message.seq, ProbeOutcome("local", 0, "no socket to ask by"))

    async def _judge(self, message: Send, sock: socket.socket) -> None:
        """Ask, and report at the timeout, and once more if the answer comes late."""
        probe = asyncio.create_task(_probe(message, sock))
        loop = asyncio.get_running_loop()
        due_s = loop.time() + message.timeout_ms / 1000
        try:
            await asyncio.wait({probe}, timeout=due_s - loop.time())
            await _catch_up(probe, loop.time() - due_s)
            answer = probe.result() if probe.done() else ProbeOutcome("lost", 0, "no answer")
            self._report(message.path, message.seq, answer)
            if not probe.done():
                await asyncio.wait({probe}, timeout=LATE_S)
                if probe.done() and probe.result().verdict == "answered":
                    late = ProbeOutcome("answered", probe.result().rtt_us, "late")
                    self._report(message.path, message.seq, late)
        finally:
            probe.cancel()

    # --- names ----------------------------------------------------------------------------

    def _resolve(self, host: str) -> None:
        if len(self._names) >= _NAMES:
            self._channel.send(Resolved(host, (), "too many names at once"))
            return
        task = asyncio.create_task(self._look_up(host))
        self._names.add(task)
        task.add_done_callback(self._names.discard)

    async def _look_up(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_S):
                addresses = await loop.run_in_executor(self._resolvers, resolve, host)
            answer = Resolved(host, addresses, "" if addresses else "no address")
        except TimeoutError:
            answer = Resolved(host, (), f"no answer in {_RESOLVE_S:g} s")
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread to be had
            said = error.strerror if isinstance(error, OSError) else None
            answer = Resolved(host, (), printable((said or str(error)).lower()))
        self._channel.send(answer)


async def _probe(message: Send, sock: socket.socket) -> ProbeOutcome:
    """One probe that isn't ICMP; the socket is closed with it."""
    address, port = message.address, message.port
    ask: Coroutine[Any, Any, ProbeOutcome]
    match message.kind:
        case "tcp":
            ask = tcp.probe(sock, address, port)
        case "dns":
            ask = dns.probe(sock, address, port, message.query)
        case kind:
            host, path, secure = message.host, message.query, kind == "https"
            ask = http.probe(sock, address, port, host, path, message.statuses, secure=secure)
    with sock:
        try:
            return await ask
        except ProbeError as fault:
            return fault.answer
        except OSError as error:
            return local(error)
        except ValueError as error:  # what ssl thinks of a name
            return ProbeOutcome("local", 0, str(error))


async def _catch_up(probe: asyncio.Task[ProbeOutcome], late_s: float) -> None:
    """Let a probe take in what has come; if we didn't run ourselves, give it that time back."""
    if late_s > _STALL_S:
        await asyncio.wait({probe}, timeout=late_s)
    for _ in range(4):  # turns of the loop from the kernel's word to a task that waits for it
        if not probe.done():
            await asyncio.sleep(0)


def resolve(host: str) -> tuple[str, ...]:
    """A name's addresses, those that a socket can be bound for any device to ask."""
    # as bytes: a str would need the IDNA codec, which may not be readable any more
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    each = dict.fromkeys(str(where[0]) for _, _, _, _, where in found)
    plain = [a for a in each if "%" not in a and not a.startswith("::ffff:")]
    half = MAX_ADDRESSES // 2
    v4 = [a for a in plain if ":" not in a][:half]
    v6 = [a for a in plain if ":" in a][:half]
    return tuple(a for a in plain if a in v4 or a in v6)


async def _run(sock: socket.socket) -> int:
    cause = await FrontendLoop(sock).over
    if cause:
        logging.getLogger(__name__).error("the channel to the engine failed: %s", cause)
    return 1 if cause else 0


def main() -> NoReturn:
    fd, uid, gid = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is the engine's to obey
    log.set_up()
    sock = socket.socket(fileno=fd)
    privileges.drop(uid, gid, limit=True)
    status = asyncio.run(_run(sock))
    os._exit(status)  # a thread may still wait for a resolver


if __name__ == "__main__":
    main()

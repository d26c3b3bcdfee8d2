"""The frontend: probes, lookups and requests to other servers, in an unprivileged process.

`python -m ifdefault.frontend.main FD UID GID`, started by the engine (`frontend_connection`), or
`ifdefault-frontend`, started by systemd when the engine connects to ifdefault-frontend.socket. FD
is its channel.

Rules: it drops its privileges before it reads the first message, and ends when the channel does. It
makes no decisions, and opens no sockets to the Internet itself except the resolver's. All imports
happen before the change of user, who may be unable to read the files. It has to stay small, so it
doesn't import pydantic.
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

from ifdefault import __version__
from ifdefault.frontend.probe import dns, http, tcp
from ifdefault.frontend.probe.icmp import LATE_S, Echo
from ifdefault.frontend.probe.outcome import ProbeError, ProbeOutcome, local
from ifdefault.frontend.requests import RequestRunner
from ifdefault.ipc import log, privileges, sandbox, tasks
from ifdefault.ipc.channel import Channel
from ifdefault.ipc.listen_fds import passed_socket
from ifdefault.ipc.messages import (
    MAX_ADDRESSES,
    TO_FRONTEND,
    Bind,
    Fetch,
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
    Unconfined,
    Update,
    printable,
)
from ifdefault.model.errors import internal

_RESOLVERS, _RESOLVE_S, _LOOKUPS = 8, 10.0, 64
_PROBES = 4096  # at once, except ICMP; each has a socket
_STALL_S = 0.02  # a timer this late means that this process didn't run


class FrontendLoop:
    def __init__(self, sock: socket.socket, missing: tuple[str, ...] = ()) -> None:
        """`missing`: what this process isn't confined by."""
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._channel = Channel(sock, TO_FRONTEND, self._receive, self._end, sockets=True)
        self._echoes: dict[int, Echo] = {}  # by path
        self._probes: dict[asyncio.Task[None], int] = {}  # with their paths
        self._lookups: set[asyncio.Task[None]] = set()
        self._resolvers = ThreadPoolExecutor(_RESOLVERS)
        self._requests = RequestRunner(self._channel.send)
        self._channel.send(Ready(os.getpid(), __version__))
        if missing:
            self._channel.send(Unconfined(tuple(map(printable, missing))))

    def _end(self, cause: str) -> None:
        if not self.over.done():
            self.over.set_result(cause)

    def _receive(self, message: ToFrontend, sock: socket.socket | None) -> None:
        match message:
            case Send():
                self._probe(message, sock)
            case Bind():
                self._bind(message, sock)
            case Unbind():
                self._unbind(message.path)
            case Resolve():
                self._resolve(message.host)
            case Update() | Query() | Fetch():
                self._requests.start(message, sock)
            case Ping():
                self._channel.send(Pong(message.token))

    def _bind(self, message: Bind, sock: socket.socket | None) -> None:
        path = message.path
        if before := self._echoes.pop(path, None):
            for seq in before.close():
                self._report(path, seq, ProbeOutcome("local", 0, "socket replaced"))
        if sock is not None:
            report = partial(self._report, path)
            self._echoes[path] = Echo(sock, message.family, path, report)

    def _unbind(self, path: int) -> None:
        if echo := self._echoes.pop(path, None):
            echo.close()
        for task in [task for task, probed in self._probes.items() if probed == path]:
            task.cancel()

    # --- probes ---------------------------------------------------------------------------

    def _report(self, path: int, seq: int, outcome: ProbeOutcome) -> None:
        rtt_us, detail = min(outcome.rtt_us, 3_600_000_000), printable(outcome.detail)
        self._channel.send(Outcome(path, seq, outcome.verdict, rtt_us, detail))

    def _probe(self, message: Send, sock: socket.socket | None) -> None:
        if message.kind == "icmp":
            if echo := self._echoes.get(message.path):
                echo.send(message.seq, message.address, message.timeout_ms / 1000)
                return
        elif sock is not None and len(self._probes) < _PROBES:
            task = tasks.start(self._run_probe(message, sock))
            self._probes[task] = message.path
            task.add_done_callback(self._probes.__delitem__)
            return
        if sock is not None:
            sock.close()
        self._report(message.path, message.seq, ProbeOutcome("local", 0, "no socket"))

    async def _run_probe(self, message: Send, sock: socket.socket) -> None:
        """Report the outcome at the timeout at the latest, and again if the answer comes late."""
        probe = tasks.start(_probe(message, sock))
        loop = asyncio.get_running_loop()
        due_s = loop.time() + message.timeout_ms / 1000
        try:
            await asyncio.wait({probe}, timeout=due_s - loop.time())
            await _catch_up(probe, loop.time() - due_s)
            outcome = probe.result() if probe.done() else ProbeOutcome("lost", 0, "no answer")
            self._report(message.path, message.seq, outcome)
            if not probe.done():
                await asyncio.wait({probe}, timeout=LATE_S)
                if probe.done() and probe.result().verdict == "answered":
                    late = ProbeOutcome("answered", probe.result().rtt_us, "late")
                    self._report(message.path, message.seq, late)
        finally:
            probe.cancel()

    # --- name lookups ---------------------------------------------------------------------

    def _resolve(self, host: str) -> None:
        if len(self._lookups) >= _LOOKUPS:
            self._channel.send(Resolved(host, (), "too many lookups at once"))
            return
        task = tasks.start(self._look_up(host))
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def _look_up(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_S):
                addresses = await loop.run_in_executor(self._resolvers, resolve, host)
            answer = Resolved(host, addresses, "" if addresses else "no address")
        except TimeoutError:
            answer = Resolved(host, (), f"no answer in {_RESOLVE_S:g} s")
        except (OSError, RuntimeError) as error:  # RuntimeError: can't start a thread
            text = error.strerror if isinstance(error, OSError) else None
            answer = Resolved(host, (), printable((text or str(error)).lower()))
        except Exception as error:
            log.exception(error, f"lookup of {host}")
            answer = Resolved(host, (), printable(internal(error)))
        self._channel.send(answer)


async def _probe(message: Send, sock: socket.socket) -> ProbeOutcome:
    """Send one probe that isn't ICMP, and close the socket."""
    address, port = message.address, message.port
    probe: Coroutine[Any, Any, ProbeOutcome]
    match message.kind:
        case "tcp":
            probe = tcp.probe(sock, address, port)
        case "dns":
            probe = dns.probe(sock, address, port, message.query)
        case kind:
            host, path, secure = message.host, message.query, kind == "https"
            probe = http.probe(sock, address, port, host, path, message.statuses, secure=secure)
    with sock:
        try:
            return await probe
        except ProbeError as error:
            return error.outcome
        except OSError as error:
            return local(error)
        except ValueError as error:  # ssl rejects the name
            return ProbeOutcome("local", 0, str(error))
        except Exception as error:
            log.exception(error, f"{message.kind} probe")
            return ProbeOutcome("local", 0, internal(error))


async def _catch_up(probe: asyncio.Task[ProbeOutcome], late_s: float) -> None:
    """Let a probe read what has arrived; if this process was stalled, give it that time back."""
    if late_s > _STALL_S:
        await asyncio.wait({probe}, timeout=late_s)
    for _ in range(4):  # turns of the loop from a readable socket to the task waiting for it
        if not probe.done():
            await asyncio.sleep(0)


def resolve(host: str) -> tuple[str, ...]:
    """A name's addresses, without link-local and IPv4-mapped ones."""
    # as bytes: a str would need the IDNA codec, which may not be readable any more
    answers = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in answers)
    plain = [a for a in addresses if "%" not in a and not a.startswith("::ffff:")]
    half = MAX_ADDRESSES // 2
    v4 = [a for a in plain if ":" not in a][:half]
    v6 = [a for a in plain if ":" in a][:half]
    return tuple(a for a in plain if a in v4 or a in v6)


async def _run(sock: socket.socket, missing: tuple[str, ...]) -> int:
    cause = await FrontendLoop(sock, missing).over
    if cause:
        logging.getLogger(__name__).error("the channel to the engine failed: %s", cause)
    return 1 if cause else 0


def serve(fd: int, uid: int, gid: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine
    log.set_up()
    sock = socket.socket(fileno=fd)
    missing = sandbox.enter(sandbox.FRONTEND, uid, gid)
    status = tasks.run(_run(sock, missing))
    os._exit(status)  # don't wait for resolver threads


def main() -> NoReturn:
    """`ifdefault-frontend`: in a unit of systemd, which has chosen the user."""
    serve(passed_socket("ifdefault-frontend"), privileges.KEEP, privileges.KEEP)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:4]))

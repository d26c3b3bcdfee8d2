"""The engine's end of the DNS server: finds the one that answers already, or starts one.

    find ──> servers of before ──┬── this version: it is used
                                 └── another: one is started; it gets the sockets, then they leave

A DNS server is a process of its own, which outlives its engine: systemd's, at UNIT, or one that an
engine started, at OWN. Each listens for engines on a socket in the run directory.

Rules: the engine keeps a duplicate of each socket that a server answers on, so that no query is
refused while a server is replaced, or after one has died. A server leaves only after its successor
has taken everything in. Systemd's is preferred to our own, which ends with the engine's cgroup:
before that, it takes over from our own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from ifdefault.daemon.event_log import EventLog
from ifdefault.daemon.process.dns_connection import Connection, Held, connect, dismiss, end, start
from ifdefault.daemon.process.spawn import Backoff, Pings, status_text
from ifdefault.host.left_dns_server import DNS_SERVER
from ifdefault.ipc import privileges, tasks
from ifdefault.ipc.messages import DNS_VERSION, Leave, Message, Ping, Pong, Served
from ifdefault.model.config import DaemonConfig, Severity
from ifdefault.model.errors import HostError, reason

UNIT, OWN = "dns.sock", "dns-own.sock"
LINGER_S = 30  # after the engine was told to end: time for another to start
_LOOK_S = 2.0  # between looks for systemd's server, while another is used
_LOOK_AGAIN_S = 60.0  # after it didn't answer
_ANSWER_S, _STEP_S = 5.0, 0.02  # time for systemd's server to take over before the engine ends
_CANT_START = "the DNS server can't be started: "


class DnsServerProcess:
    """Keeps a DNS server running while one is `needed`. `started(held)` is called with the sockets
    that the new one has, and with those of servers before it; `ended` when it has ended."""

    def __init__(
        self,
        run_dir: Path,
        config: DaemonConfig,
        event_log: EventLog,
        receive: Callable[[Served], None],
    ) -> None:
        self._unit, self._own, self._used = run_dir / UNIT, run_dir / OWN, run_dir / DNS_SERVER
        *self._user, _ = privileges.choose_user(config.user)
        self._event_log, self._report = event_log, receive
        self.started: Callable[[Held, Held], None] = lambda held, spare: None
        self.ended: Callable[[], None] = lambda: None
        self.drained: Callable[[], None] = lambda: None  # it has read all that waited for it
        self._server: Connection | None = None
        # others that were found: they answer until the server has everything
        self._before: list[Connection] = []
        self._task: asyncio.Task[None] | None = None
        self._wake, self._is_over = asyncio.Event(), False  # the server has ended
        self._cause = ""
        self._backoff = Backoff()
        self._handover = 0  # the token of the ping whose answer shows that the server has all
        self._tokens = count(1)
        self._pings = Pings()
        self._unit_due_s = 0.0  # when to look for systemd's server again

    @property
    def problems(self) -> tuple[str, ...]:
        missing = self._task is not None and self._server is None
        return ("the DNS server is not running; no queries are answered",) if missing else ()

    @property
    def _connections(self) -> list[Connection]:
        return [c for c in (self._server, *self._before) if c is not None]

    @property
    def is_used(self) -> bool:
        return self._server is not None

    # --- what it is told -------------------------------------------------------------------

    def begin(self, *, needed: bool) -> None:
        """At the start of the engine: end the servers of an earlier one, unless they are needed.
        Systemd's would start if it were asked for nothing."""
        if not needed and self._used.exists():
            dismiss(self._unit)
            dismiss(self._own)
            self._used.unlink()

    def keep(self, *, needed: bool) -> None:
        if needed and self._task is None:
            self._task = tasks.start(self._keep_running())
        elif not needed and self._task is not None:
            self._task.cancel()
            self._task = None
            self._part(0)
            self._used.unlink(missing_ok=True)
            self.ended()

    def post(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self._server is not None:
            self._server.send(message, fds)

    @property
    def waits(self) -> bool:
        """Whether it has to read before more can be sent to it."""
        return self._server is not None and self._server.waits

    def handed_over(self) -> None:
        """The server was sent everything: when it has read that, those before it leave."""
        if self._before and not self._handover:
            self._handover = next(self._tokens)
            self.post(Ping(self._handover))

    def look(self, now: float) -> None:
        """Kill a server that doesn't answer."""
        if self._server is None:
            return
        if self._pings.is_silent(now):
            self._log_once("the DNS server no longer responds")
            self._server.kill()
        elif self._pings.is_due(now):
            self._server.send(Ping(next(self._tokens)))

    async def hand_to_unit(self) -> None:
        """Before the engine ends: have systemd's server take over from our own, which systemd would
        kill with us. Not if it doesn't come in time."""
        self._unit_due_s, end_s = 0.0, time.monotonic() + _ANSWER_S
        while self._is_passing and self._unit_due_s <= time.monotonic() < end_s:
            self._wake.set()
            await asyncio.sleep(_STEP_S)

    @property
    def _is_passing(self) -> bool:
        """Whether systemd's server is to take over from the one in use, and hasn't."""
        server = self._server
        return (
            server is not None
            and self._unit.exists()
            and (server.path != self._unit or bool(self._before))
        )

    async def close(self, linger_s: int | None) -> None:
        """End, and let the server go on for so long; None: until another engine comes."""
        if self._task is not None:
            await tasks.end(self._task)
            self._task = None
        self._part(linger_s)

    def _part(self, linger_s: int | None) -> None:
        for connection in self._connections:
            if linger_s is not None:
                connection.send(Leave(linger_s))
            connection.close()
        self._server, self._handover = None, 0
        self._before.clear()

    # --- the server -------------------------------------------------------------------------

    async def _keep_running(self) -> None:
        while True:
            await asyncio.sleep(self._backoff.wait_s(time.monotonic()))
            try:
                await self._find()
                known = [c for c in self._connections if c.version == DNS_VERSION]
                server = min(known, key=lambda c: c.path == self._own, default=None)
                if server is None:
                    server = await start(
                        self._own,
                        privileges.possible(*self._user),
                        self._receive,
                        self._connection_ended,
                        self._child_ended,
                    )
            except (HostError, OSError) as error:
                text = str(error) if isinstance(error, HostError) else _CANT_START + reason(error)
                self._log_once(text)
                continue
            self._backoff.started(time.monotonic())
            if server.closed:  # it has ended already
                continue
            if server is not self._server:
                self._use(server)
            elif self._before:  # systemd's is of another version
                self._unit_due_s = time.monotonic() + _LOOK_AGAIN_S
                self._end_before()
            await self._until_over()

    async def _find(self) -> None:
        """Connect to the servers that run, but not to one again."""
        for path in (self._unit, self._own):
            if path in [c.path for c in self._connections]:
                continue
            try:
                self._before.append(await connect(path, self._receive, self._connection_ended))
            except (HostError, OSError) as error:
                if isinstance(error, HostError):
                    self._log_once(f"{path}: {error}", "warning")
                    dismiss(path)
                if path == self._unit:
                    self._unit_due_s = time.monotonic() + _LOOK_AGAIN_S

    def _child_ended(self, status: int) -> None:
        """Its connection has ended too, and says that first if it was in use."""
        if status:
            self._log_once(f"a DNS server ended: {status_text(status)}")

    def _use(self, server: Connection) -> None:
        self._before = before = [other for other in self._connections if other is not server]
        self._server, self._handover = server, 0
        server.drained = self.drained
        try:
            self._used.write_text(f"{server.pid}\n")
        except OSError as error:  # only who looks for a server that was left needs it
            self._log_once(f"{self._used}: {reason(error)}", "warning")
        self._is_over = False
        self._pings.start(time.monotonic())
        for other in before:
            if other.version != DNS_VERSION:
                text = f"the DNS server of version {other.version} hands over to {DNS_VERSION}"
                self._event_log.note("dns", text)
        held, server.held = server.held, []
        spare = [pair for other in before for pair in other.held]
        for other in before:
            other.held = []
        self.started(held, spare)

    def _log_once(self, cause: str, severity: Severity = "error") -> None:
        if self._backoff.is_news(cause, time.monotonic()):
            self._event_log.note("dns", cause, severity=severity)

    async def _until_over(self) -> None:
        """Until the server has ended, or systemd's can be used in its place."""
        while not self._is_over:
            assert self._server is not None
            alone = self._server.path == self._unit or self._before
            if not alone and time.monotonic() >= self._unit_due_s and self._unit.exists():
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
        self._server = None
        self.ended()
        for other in [c for c in self._before if c.version == DNS_VERSION]:
            self._before.remove(other)  # it is found again, with its sockets
            other.close()
        self._log_once(f"the DNS server ended{': ' if self._cause else ''}{self._cause}")

    def _receive(self, connection: Connection, message: Served | Pong) -> None:
        if isinstance(message, Served):
            self._report(message)
        if connection is not self._server:
            return
        self._pings.heard(time.monotonic())
        if isinstance(message, Pong) and message.token == self._handover:
            self._end_before()

    def _end_before(self) -> None:
        for other in self._before:
            other.send(Leave(0))
            other.close()
        self._before.clear()
        self._handover = 0

    def _connection_ended(self, connection: Connection, cause: str) -> None:
        connection.close()
        if cause:
            connection.kill()
        if connection is self._server:
            self._cause = cause
            self._is_over = True
            self._wake.set()
        elif connection in self._before:
            self._before.remove(connection)


def end_all(run_dir: Path) -> None:
    """End the servers that a daemon has left."""
    end((run_dir / UNIT, run_dir / OWN))
